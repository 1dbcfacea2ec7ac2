"""The group of commands: quick, documented, and one line for every error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from redy.cli import main as cli
from redy.errors import CheckFailed, InputError
from redy.version import __version__

ROOT = Path(__file__).resolve().parents[2]


def group_with(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    @click.command()
    def failing() -> None:
        raise error

    monkeypatch.setattr(cli.redy, "get_command", lambda ctx, name: failing)


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("box.json: field lower: element 2 is not a number"), 2, "error: box.json: field lower: element 2"),
        (CheckFailed("the reduced network differs"), 1, "error: the reduced network differs"),
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (click.Abort(), 130, "error: interrupted"),
        (click.BadParameter("no such mode"), 2, "error: Invalid value: no such mode"),
        (ZeroDivisionError("division by zero"), 70, "error: ZeroDivisionError: division by zero (a fault of redy"),
        (ValueError("two\nlines"), 70, "error: ValueError: two lines"),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(monkeypatch, capsys, error, code, line):
    group_with(monkeypatch, error)
    assert cli.run(["failing"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    # click ends the terminal's `^C` with a newline of its own.
    told = captured.err.removeprefix("\n") if isinstance(error, KeyboardInterrupt) else captured.err
    assert told.startswith(line)
    assert told.count("\n") == 1


def test_debug_shows_the_traceback_of_an_unexpected_error(monkeypatch, capsys):
    group_with(monkeypatch, ZeroDivisionError("division by zero"))
    assert cli.run(["--debug", "failing"]) == 70
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_the_exit_code_of_a_command_is_the_exit_code_of_redy(monkeypatch):
    @click.command()
    @click.pass_context
    def unknown(ctx: click.Context) -> None:
        ctx.exit(3)

    monkeypatch.setattr(cli.redy, "get_command", lambda ctx, name: unknown)
    assert cli.run(["unknown"]) == 3


def test_main_leaves_with_the_code_of_run(capsys):
    with pytest.raises(SystemExit) as left:
        cli.main(["--version"])
    assert left.value.code == 0
    assert __version__ in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nosuch"], ["--nosuch"]])
def test_bad_usage_is_exit_2(capsys, arguments):
    assert cli.run(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_help_and_version_import_neither_runtime_nor_solver():
    program = (
        "import sys; from redy.cli.main import run; run(['--help']); run(['--version']);"
        "heavy = {'onnx', 'onnxruntime', 'numba', 'gurobipy', 'highspy', 'numpy'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


@pytest.mark.parametrize("name", list(cli.SUMMARIES))
def test_every_command_is_documented(name):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    assert any(re.search(rf"\bredy {name}\b", page.read_text(encoding="utf-8")) for page in pages), (
        f"`redy {name}` stands neither in README.md nor in docs/"
    )


def test_every_command_module_is_listed():
    modules = {path.stem for path in (ROOT / "redy" / "cli").glob("*.py")}
    for name in modules & set(cli.SUMMARIES):
        command = cli.redy.get_command(click.Context(cli.redy), name)
        assert isinstance(command, click.Command)
        assert command.help, f"redy {name} has no help text"


MISSING = {
    "reduce": ["no.onnx", "--bounds", "[0,1]"],
    "simplify": ["no.onnx", "-o", "out.onnx"],
    "verify": ["no.onnx", "no.onnx", "--bounds", "[0,1]", "--tolerance", "1"],
    "prove": ["no.onnx", "--property", "no.vnnlib"],
    "slice": ["no.onnx", "--bounds", "[0,1]", "--splits", "2"],
    "eval": ["no.redy", "no.npy"],
    "export": ["no.redy", "-o", "out.onnx"],
    "report": ["no.json", "-o", "out.html"],
    "plot": ["criteria", "no.json", "-o", "out.png"],
    "certify": ["no.onnx", "no.onnx", "--bounds", "[0,1]", "--tolerance", "1", "-o", "out.cert"],
    "check": ["no.onnx", "no.cert"],
    "batch": ["no.csv", "-o", "out"],
    "info": ["no.onnx"],
    "explain": ["no.json", "--unit", "a/0"],
    "doctor": None,
    "warmup": None,
    "completion": ["tcsh"],
}
"""Command -> arguments that name files which are not there; None for commands that take none."""


def test_every_command_is_asked_for_what_is_missing():
    assert set(MISSING) == set(cli.SUMMARIES)


@pytest.mark.parametrize("command", [name for name, arguments in MISSING.items() if arguments is not None])
def test_a_file_that_is_missing_is_one_line_and_exit_2(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.run([command, *MISSING[command]]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if path.name != "out"] == []
