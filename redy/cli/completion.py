"""`redy completion`: the script that completes redy's commands in a shell."""

from __future__ import annotations

import click


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(shell: str) -> None:
    """Print the completion script of SHELL; `eval "$(redy completion bash)"` in ~/.bashrc turns it on.

    Exit code 0: done; 2: bad usage.
    """
    from click.shell_completion import get_completion_class

    from redy.cli.main import redy

    kind = get_completion_class(shell)
    if kind is None:  # click has all three
        raise click.UsageError(f"no completion for {shell}")
    # click's bash class starts bash to ask its version; the script itself does not depend on it.
    maker = kind(redy, {}, "redy", "_REDY_COMPLETE")
    click.echo(kind.source_template % maker.source_vars())
