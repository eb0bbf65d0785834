"""``statscache replay``: count the messages of files."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from statscache.archive.lines import lines, opened
from statscache.cli.context import Context
from statscache.cli.terminal import echo
from statscache.counting.batch import Origin, Outcome
from statscache.errors import ArchiveUnavailable
from statscache.hub.intake import count_texts


@click.command()
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, allow_dash=True)
)
@click.option(
    "--batch-size", default=10_000, show_default=True, help="Messages in one transaction."
)
@click.pass_obj
def replay(context: Context, files: tuple[str, ...], batch_size: int) -> None:
    """Count the messages in FILES: fedmsg messages, one JSON object per line, plain
    or compressed (gzip, zstandard).

    "-" is standard input. What was counted before, from any source, is not counted again, so an
    interrupted replay can be repeated. A file is taken to be complete from its first message to its
    last.
    """
    engine = context.engine()
    # Replayed messages are for classic plugins too, even if their history is not complete.
    engine.release_live()
    tally = _Tally()
    try:
        with _ProgressBar(files) as progress:
            for name in files:
                span: list[float] = []
                for batch in _batches(progress.lines(name), batch_size):
                    outcome = count_texts(engine, batch, origin=Origin.FILE)
                    tally.add(outcome)
                    span = _extended(span, outcome)
                    progress.show()
                if span:
                    engine.cover(*span)
        for ident in engine.join_complete():
            echo(f"{ident} has counted all that the others have")
    except KeyboardInterrupt:
        echo("Interrupted: what is reported below is committed; repeat the command to continue.")
        raise
    finally:
        engine.close()
        tally.show()


class _Tally:
    """Adds up what happened to the messages."""

    def __init__(self) -> None:
        self._counted = self._duplicates = self._rejected = 0
        self._by_lane: Counter[str] = Counter()

    def add(self, outcome: Outcome) -> None:
        self._counted += outcome.counted
        self._duplicates += outcome.duplicates
        self._rejected += len(outcome.rejections)
        self._by_lane.update(outcome.lanes)

    def show(self) -> None:
        echo(
            f"{self._counted} counted, {self._duplicates} counted before, "
            f"{self._rejected} rejected."
        )
        if len({*self._by_lane.values()}) > 1:
            # Some plugins had counted less than others before.
            for lane, counted in self._by_lane.items():
                echo(f"  by the lane {lane}: {counted}")
        if self._rejected:
            echo("'statscache rejected list' shows the rejected messages and the reasons.")


def _extended(span: list[float], outcome: Outcome) -> list[float]:
    """The first and the last time of the messages of ``span`` and of a batch."""
    times = [*span, *(outcome.span or ())]
    return [min(times), max(times)] if times else []


def _batches(lines: Iterator[bytes], size: int) -> Iterator[list[bytes]]:
    """``lines`` in lists of ``size``; those before a damaged place of a file are not lost."""
    batch: list[bytes] = []
    try:
        for line in lines:
            batch.append(line)
            if len(batch) == size:
                yield batch
                batch = []
    except ArchiveUnavailable:
        yield batch
        raise
    if batch:
        yield batch


class _ProgressBar:
    """Reads the lines of files, and draws a progress bar on a terminal."""

    def __init__(self, files: tuple[str, ...]) -> None:
        self._files = files
        self._done = 0
        self._position: Callable[[], int] = _nowhere
        total = sum(Path(name).stat().st_size for name in files if name != "-")
        self._bar = click.progressbar(
            length=total, label="Replaying", file=sys.stderr, hidden="-" in files
        )

    def __enter__(self) -> _ProgressBar:
        self._bar.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.render_finish()

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file without the empty ones."""
        with opened(name) as binary:
            self._position = binary.tell if binary.seekable() else _nowhere
            try:
                yield from lines(binary, name)
            finally:
                self._done += self._position()
                self._position = _nowhere

    def show(self) -> None:
        """Redraw the bar."""
        self._bar.update(self._done + self._position() - self._bar.pos)


def _nowhere() -> int:
    return 0
