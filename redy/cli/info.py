"""`redy info`: the layers of a network and what can be proved about them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from redy.model import Network


@click.command("info")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def info_command(model: Path, as_json: bool) -> None:
    """List the layers of MODEL, their units and arithmetic, and which of them can be proved about.

    Exit code 0: done; 2: bad input or usage.
    """
    from redy.formats.onnx_read import read_network

    document = describe(read_network(model))
    if as_json:
        click.echo(json.dumps({"file": str(model), **document}, indent=2))
    else:
        _show(str(model), document)


def describe(network: Network) -> dict[str, Any]:
    """Input, outputs, totals, and one entry per node in order: what it is and whether it can be bounded."""
    from redy.model import Activate, Affine
    from redy.model.carried import Elementwise, Foreign
    from redy.model.network import node_parameters

    layers: list[dict[str, Any]] = []
    behind: set[str] = set()
    for node in network:
        sources = set(node.inputs if isinstance(node, Foreign) else node.sources)
        foreign = isinstance(node, Foreign)
        if foreign or sources & behind:
            behind.add(node.name)
        if foreign:
            reach = "carried unchanged: cannot be bounded"
        elif node.name in behind:
            reach = "behind a carried operator: cannot be bounded"
        else:
            reach = "units can be removed" if isinstance(node, Activate) else "bounded"
        operator = node.operator if isinstance(node, Foreign | Elementwise) else type(node).__name__
        layers.append(
            {
                "name": node.name,
                "kind": operator,
                "shape": list(node.shape),
                "parameters": node_parameters(node),
                "multiply_adds": sum(t.operator.macs for t in node.terms) if isinstance(node, Affine) else 0,
                "proofs": reach,
            }
        )
    ports = {
        "input": {"name": network.input.name, "shape": list(network.input.shape), "type": network.input.dtype},
        "outputs": [{"name": port.name, "shape": list(port.shape), "type": port.dtype} for port in network.outputs],
    }
    totals = {"units": network.units, "parameters": network.parameters, "multiply_adds": network.macs}
    return {**ports, **totals, "layers": layers}


def _show(name: str, document: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(name), title_justify="left")
    for heading in ("layer", "kind", "shape"):
        table.add_column(heading)
    table.add_column("parameters", justify="right")
    table.add_column("multiply-adds", justify="right")
    table.add_column("proofs")
    for layer in document["layers"]:
        shape = "x".join(str(size) for size in layer["shape"])
        counts = (f"{layer[key]:,}" if layer[key] else "" for key in ("parameters", "multiply_adds"))
        table.add_row(Text(layer["name"]), Text(layer["kind"]), shape, *counts, layer["proofs"])
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    console.print(table)
    console.print(
        f"{document['units']:,} units, {document['parameters']:,} parameters, "
        f"{document['multiply_adds']:,} multiply-adds; input "
        f"{document['input']['name']} {'x'.join(map(str, document['input']['shape']))}",
        markup=False,
        highlight=False,
    )
