"""`redy`: the group of commands, loaded one by one when asked for, and what every command does with an error."""

from __future__ import annotations

import importlib
import logging
import sys
import traceback

import click

from redy.cli import interrupts
from redy.condensed.kernels.start import own_process
from redy.errors import RedyError
from redy.version import __version__

FAULT = 70
"""The exit code of a fault of redy (EX_SOFTWARE of sysexits.h): never that of an answer."""
SUMMARIES = {
    "reduce": "Prove which neurons are not needed on a box of inputs and write the smaller network.",
    "simplify": "Remove the channels of a pruned network that are constant or unused, exactly.",
    "verify": "Decide whether two networks are equivalent on a box of inputs.",
    "prove": "Decide whether a network has a property (VNN-LIB).",
    "slice": "Cut a box into slices and reduce the network for each: a family of small networks.",
    "eval": "Evaluate a family of small networks.",
    "export": "Write a family, or one slice of it, as ONNX or C99.",
    "report": "Write a report or a family of slices as one HTML page.",
    "plot": "Write figures for papers: share removed by criterion, over slices, maps of decisions.",
    "certify": "Prove a claim about two files and write the proof as a certificate.",
    "check": "Check a certificate by an independent small checker.",
    "batch": "Reduce many networks on many boxes, with results that are kept on an interruption.",
    "info": "List the layers of a network and what can be proved about them.",
    "explain": "Say what became of one unit in a reduction, and why.",
    "doctor": "Check this installation: versions, solvers, kernels, cores.",
    "warmup": "Compile the kernels now, so that no later command waits for them.",
    "completion": "Print the script that completes redy's commands in a shell.",
}
"""Command -> the line of `redy --help`, here so that listing the commands imports none of them."""


class LazyGroup(click.Group):
    """A group whose command `name` is `<name>_command` of the module redy.cli.<name>, imported when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """The commands, in the order in which they are documented."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - as above
        """The command, imported now; None if there is none of that name."""
        if cmd_name not in SUMMARIES:
            return None
        command = getattr(importlib.import_module(f"redy.cli.{cmd_name}"), f"{cmd_name}_command")
        if not isinstance(command, click.Command):
            raise TypeError(f"redy.cli.{cmd_name}.{cmd_name}_command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands for `--help`, without importing them."""
        if rows := [(name, SUMMARIES[name]) for name in self.list_commands(ctx)]:
            with formatter.section("Commands"):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="redy")
@click.option("--debug", is_flag=True, help="Show the traceback of an unexpected error.")
def redy(debug: bool) -> None:
    """Make a neural network smaller, and prove what stays the same."""


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code.

    0 done; 1 an internal check failed, nothing was written; 2 bad input or usage; 70 a fault of redy; 130 interrupted.
    A command may end with another code that its documentation names.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    interrupts.install()
    own_process()
    sys.exit(run(arguments))


def run(arguments: list[str]) -> int:
    """The exit code of `redy` called with `arguments`; every error has become one line on stderr."""
    _show_log(quiet="--quiet" in arguments)
    try:
        outcome = redy.main(arguments, prog_name="redy", standalone_mode=False, obj=tuple(arguments))
    except (click.Abort, KeyboardInterrupt) as error:
        kept = str(error.__cause__ if isinstance(error, click.Abort) else error)
        return _fail(f"interrupted; {kept}" if kept not in {"", "None"} else "interrupted", 130)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return error.exit_code
    except click.UsageError as error:
        hint = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        return _fail(f"{error.format_message()}{hint}", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except RedyError as error:
        return _fail(str(error), error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort of the process: one line instead of a traceback
        if "--debug" in arguments:
            traceback.print_exc()
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return _fail(f"{text} (a fault of redy; `redy --debug ...` shows where)", FAULT)
    # click hands back the code of `ctx.exit(code)`, or else whatever the command returned.
    return outcome if isinstance(outcome, int) else 0


class _ToStderr(logging.Handler):
    """Lines of the package's log, on whatever stderr is by then: a progress display puts itself in its place."""

    def emit(self, record: logging.LogRecord) -> None:
        print(record.getMessage(), file=sys.stderr, flush=True)  # noqa: T201 - not through click, which keeps the first stderr


def _show_log(*, quiet: bool) -> None:
    log = logging.getLogger("redy")
    log.handlers = [handler for handler in log.handlers if not isinstance(handler, _ToStderr)]
    if not quiet:
        log.addHandler(_ToStderr())
        log.setLevel(logging.INFO)


def _fail(text: str, code: int) -> int:
    click.echo(f"error: {' '.join(text.split())}", err=True)
    return code
