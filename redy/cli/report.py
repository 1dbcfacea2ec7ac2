"""`redy report`: the page of a report."""

from __future__ import annotations

from pathlib import Path

import click

from redy.cli.paths import guard


@click.command("report")
@click.argument("result", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="The HTML file to write.")
def report_command(result: Path, output: Path) -> None:
    """Write RESULT as one HTML page that needs no network access.

    RESULT is a report (JSON, of `redy reduce --report`) or a family (.redy, of `redy slice`).

    Exit code 0: done; 2: bad input or usage.
    """
    from redy.formats.files import write_text
    from redy.report import page, read_report

    guard([("the result", result)], [("the page", output)])
    if result.suffix.lower() == ".redy":
        from redy.report.family_page import family_page
        from redy.slicing.family import Family

        write_text(output, family_page(Family.open(result), result.name))
        return
    write_text(output, page(read_report(result)))
