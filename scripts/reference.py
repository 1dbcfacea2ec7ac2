"""Pages of the documentation made from the code itself: commands from click, operators from the reader.

A hook of MkDocs (`hooks` in mkdocs.yml): the pages are made when the site is built, so they cannot be out of date.
"""

from __future__ import annotations

from typing import Any

import click

EXIT_CODES = {
    0: "done; also when a limit ended the search, for the result is valid",
    1: "an answer that is no: refuted, violated or rejected; or an internal check failed and nothing was written",
    2: "bad input or usage; one line names the file, the place, and what to do",
    3: "unknown within the limits",
    70: "a fault of redy; no output was written",
    130: "interrupted",
}
"""Exit code -> meaning, for every command."""
OPERATORS = """\
redy reads these ONNX operators as arithmetic, activations or elementwise functions of its own, where their attributes
allow it. Any other operator is carried unchanged where onnxruntime can evaluate it: its value is not bounded, and units
in front of it stay. `redy info MODEL` says which nodes of a model are bounded."""


def commands_page() -> str:
    """docs/commands.md: every command with its help, arguments and options, and the exit codes."""
    from redy.cli.main import SUMMARIES, redy

    parts = ["# Commands\n", "## Exit codes\n", "| code | meaning |\n| --- | --- |"]
    parts += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    for name in SUMMARIES:
        context = click.Context(redy, info_name="redy")
        command = redy.get_command(context, name)
        assert command is not None
        inner = click.Context(command, info_name=f"redy {name}")
        usage = " ".join(command.collect_usage_pieces(inner))
        parts += [f"\n## redy {name}\n", f"```\nredy {name} {usage}\n```\n"]
        parts += [" ".join(text.split()) + "\n" for text in (command.help or "").split("\n\n")]
        parts += ["| option | meaning |\n| --- | --- |", *_options(command, inner)]
    return "\n".join(parts) + "\n"


def _options(command: click.Command, context: click.Context) -> list[str]:
    records = [param.get_help_record(context) for param in command.get_params(context)]
    return [f"| `{_cell(names)}` | {_cell(text)} |" for names, text in filter(None, records)]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;") if "`" not in text else text.replace("|", "\\|")


def operators_page() -> str:
    """docs/operators.md: the ONNX operators that the reader knows."""
    from redy.formats import onnx_read
    from redy.formats.reading.graph import READERS

    assert onnx_read  # importing it registers every reader
    rows = "\n".join(f"- `{name}`" for name in sorted(READERS, key=str.lower))
    return f"# Operators\n\n{OPERATORS}\n\n{rows}\n"


PAGES = {"commands.md": commands_page, "operators.md": operators_page}
"""Page -> what makes it."""


def on_files(files: Any, config: Any) -> Any:  # noqa: ANN401 - types of MkDocs, which only building the site needs
    """Add the pages to the site."""
    from mkdocs.structure.files import File

    for name, make in PAGES.items():
        files.append(File.generated(config, name, content=make()))
    return files
