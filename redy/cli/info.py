"""`redy info`: the layers of a network and what can be proved about them; or what a family of slices holds."""

from __future__ import annotations

import json
import os
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

    Of a family (.redy, of `redy slice`) in place of MODEL: how it was cut, what it keeps and takes, its digests.

    Exit code 0: done; 2: bad input or usage.
    """
    from redy.formats.onnx_read import read_network

    if model.suffix.lower() == ".redy":
        from redy.slicing.facts import family_facts

        facts = family_facts(model)
        click.echo(json.dumps({"file": str(model), **facts}, indent=2) if as_json else _family(str(model), facts))
        return
    document = describe(read_network(model))
    if as_json:
        click.echo(json.dumps({"file": str(model), **document}, indent=2))
    else:
        _show(str(model), document)


def _family(name: str, facts: dict[str, Any]) -> str:
    """The facts of a family in lines."""
    cut, share, macs = facts["cut"], facts["units_not_needed"], facts["multiply_adds"]
    how = "x".join(map(str, cut["splits"])) if cut["kind"] == "grid" else f"depth {cut['depth']}"
    counts = f"{facts['distinct']:,} distinct, {facts['partial']:,} partial, {facts['decided']:,} constant"
    stored = ", folded networks stored" if facts["folded_stored"] else ""
    lines = [
        name,
        facts["guarantee"],
        f"cut              {cut['kind']} ({how}) of the {cut['of']}",
        f"slices           {facts['slices']:,} ({counts})",
        f"form             {facts['form']}{stored}",
        f"network          {facts['inputs']} inputs, {facts['outputs']} outputs, {facts['units']:,} units",
        f"                 {macs['original']:,} multiply-adds",
        f"units not needed {share['mean']:.1%} on average (median {share['median']:.1%}, least {share['least']:.1%})",
        f"multiply-adds    {macs['shared_mean'] / max(1, macs['original']):.1%} on average in the shared form",
        f"made with        {', '.join(f'{k} {v}' for k, v in facts['options'].items()) or 'not recorded'}",
        f"written by       redy {facts['written_by']}, format version {facts['version']}, {facts['bytes']:,} bytes",
        *(f"digest           {kind} {digest}" for kind, digest in facts["digests"].items()),
        *(f"member           {member} {size:,} bytes" for member, size in facts["members"].items()),
    ]
    return "\n".join(lines)


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

    from redy.report import listed

    console = Console()
    console = console if console.is_terminal or "COLUMNS" in os.environ else Console(width=140)
    columns = ("layer", "proofs", "parameters", "multiply-adds", "kind", "shape")
    rows = []
    for layer in document["layers"]:
        shape = "x".join(str(size) for size in layer["shape"])
        counts = (f"{layer[key]:,}" if layer[key] else "" for key in ("parameters", "multiply_adds"))
        rows.append((layer["name"], layer["proofs"], *counts, layer["kind"], shape))
    table = listed(columns, rows, columns[2:4], console, name)
    console.print(table)
    console.print(
        f"{document['units']:,} units, {document['parameters']:,} parameters, "
        f"{document['multiply_adds']:,} multiply-adds; input "
        f"{document['input']['name']} {'x'.join(map(str, document['input']['shape']))}",
        markup=False,
        highlight=False,
    )
