"""``statscache export``: write tables to files."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from statscache.cli.context import Context
from statscache.cli.display import Display
from statscache.cli.idents import named
from statscache.cli.moments import MOMENT
from statscache.cli.terminal import echo
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
    help="The folder to write into; an export that is there already is replaced.",
)
@click.option("--start", type=MOMENT, help="Rows from here on: UNIX seconds or ISO 8601.")
@click.option("--stop", type=MOMENT, help="Rows that are earlier than this.")
@click.pass_obj
def export(
    context: Context,
    idents: tuple[str, ...],
    format_: str,
    output: Path,
    start: float | None,
    stop: float | None,
) -> None:
    """Write the rows of IDENTS, of all when absent, to files: one for each ident and month.

    manifest.json, beside them, has their SHA-256 sums. The same rows give the same bytes,
    whatever the database, so that two rebuilds are the same when their manifests are. The hub may
    run meanwhile: all rows are of one moment.
    """
    if start is not None and stop is not None and start >= stop:
        raise click.UsageError("--start must be earlier than --stop")
    installed = context.installed
    chosen = named(installed, idents) if idents else frozenset(installed.datasets)
    database = context.database(read_only=True)
    database.check_schema()
    try:
        with Display() as display:

            def report(ident: str, rows: int) -> None:
                display.show(lambda: f"{rows:,} rows, {ident}")

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
        echo("Interrupted: an export that was there before is there still.", err=True)
        raise
    finally:
        database.dispose()
    rows = sum(file.rows for file in made.files)
    echo(f"{rows} rows of {len(chosen)} idents in {len(made.files)} files.")
    if made.removed:
        echo(f"{len(made.removed)} files of the export before are gone.")
    digest = hashlib.sha256(made.manifest().encode("utf-8")).hexdigest()
    echo(f"{output / MANIFEST}: SHA-256 {digest}")
