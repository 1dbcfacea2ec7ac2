"""`redy warmup`: compile the kernels now."""

from __future__ import annotations

import time

import click


@click.command("warmup")
@click.option("--quiet", is_flag=True, help="Print nothing.")
def warmup_command(quiet: bool) -> None:
    """Compile the kernels of the search now, once on this machine, so that no later command waits for them.

    Exit code 0: done.
    """
    from redy.reduction.warmup import warm_up

    begin = time.perf_counter()
    compiled = warm_up()
    if not quiet:
        took = time.perf_counter() - begin
        click.echo(f"kernels compiled in {took:.0f} s" if compiled else "the kernels were compiled already")
