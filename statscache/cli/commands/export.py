"""``statscache export``: write tables to files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from statscache.cli.context import Context
from statscache.cli.idents import resolve
from statscache.cli.parameters import TIME
from statscache.cli.terminal import ProgressLine, echo
from statscache.database import schema
from statscache.database.export import CSV, FORMATS, MANIFEST
from statscache.database.export import export as write


@click.command()
@click.argument("idents", nargs=-1)
@click.option("--format", "format_", type=click.Choice(FORMATS), default=CSV, show_default=True)
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("statscache-export"),
    show_default=True,
    help="The folder to write to; an existing export is replaced.",
)
@click.option("--start", type=TIME, help="The start of the range, in UNIX seconds or ISO 8601.")
@click.option("--stop", type=TIME, help="The end of the range, exclusive.")
@click.pass_obj
def export(
    context: Context,
    idents: tuple[str, ...],
    format_: str,
    output: Path,
    start: float | None,
    stop: float | None,
) -> None:
    """Write the rows of IDENTS (default: all) to files, one for each ident and month.

    manifest.json has their SHA-256 sums. The same rows produce the same bytes on any database, so
    two rebuilds are identical if their manifests are. All rows are of one snapshot, so the hub may
    run meanwhile.
    """
    if start is not None and stop is not None and start >= stop:
        raise click.UsageError("--start must be earlier than --stop")
    installed = context.installed
    chosen = resolve(installed, idents) if idents else frozenset(installed.datasets)
    database = context.database(read_only=True)
    schema.check(database)
    try:
        with ProgressLine() as line:

            def report(ident: str, rows: int) -> None:
                line.show(lambda: f"{rows:,} rows, {ident}")

            made = write(
                database,
                [installed.datasets[ident] for ident in chosen],
                output,
                format_=format_,
                start=start,
                stop=stop,
                report=report,
            )
    except KeyboardInterrupt:
        echo("Interrupted: an existing export is unchanged.", err=True)
        raise
    finally:
        database.dispose()
    rows = sum(file.rows for file in made.files)
    echo(f"{rows} rows of {len(chosen)} idents in {len(made.files)} files.")
    if made.removed:
        echo(f"{len(made.removed)} files of the previous export were deleted.")
    digest = hashlib.sha256(made.manifest().encode("utf-8")).hexdigest()
    echo(f"{output / MANIFEST}: SHA-256 {digest}")
