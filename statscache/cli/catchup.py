"""Running a catch-up for a command: its options, its progress, interruption and outcome.

``backfill``, ``rebuild`` and ``verify --repair`` fill in history in the same way.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import click

from statscache.archive import Archive, open_archive
from statscache.catchup import executors
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.catchup.progress import Progress
from statscache.cli.context import Context
from statscache.cli.terminal import ProgressLine, echo
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.counting.membership.plugin_rows import read_plugins
from statscache.database.plugin_state import FAILING, failure
from statscache.errors import ArchiveUnavailable, DatabaseUnavailable, StatscacheError
from statscache.times import to_the_minute

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE = 300.0
"""The default of ``--patience``, seconds."""

INTERRUPTED = 130
"""The exit status after Ctrl-C."""

_SLACK = 120.0
"""Seconds beyond the overlap after which lanes have agreed, or will not."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class CatchUpOptions:
    """How a command reads the archive.

    Attributes:
        workers: processes on this machine; 1 is this process itself.
        dask: the address of a cluster's scheduler, used instead of workers.
        concurrency: windows in progress at a time; None derives it from the other two.
        patience: seconds of retries while the archive or the database is away.
    """

    workers: int = 1
    dask: str | None = None
    concurrency: int | None = None
    patience: float = PATIENCE

    def polling(self, settings: Settings) -> Polling:
        """How fast the archive is queried."""
        polling = Polling.from_settings(settings)
        # Windows that wait for a worker cost the archive nothing, and with them no worker is idle.
        suggested = 2 * self.workers if self.workers > 1 else polling.concurrency
        return replace(polling, concurrency=self.concurrency or max(suggested, polling.concurrency))

    @contextmanager
    def executor(self) -> Iterator[Executor | None]:
        """Where windows are folded; None folds them in threads of this process."""
        if self.dask is not None:
            with executors.dask(self.dask) as executor:
                yield executor
        elif self.workers > 1:
            with executors.processes(self.workers) as executor:
                yield executor
        else:
            yield None


def add_options(command: F) -> F:
    """Add the options that :func:`parse_options` takes."""
    for option in (
        click.option(
            "--patience",
            default=PATIENCE,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Seconds of retries while the archive or the database is away.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(min=1),
            help="Windows of the archive in progress at a time; default: "
            "statscache.archive.concurrency, or twice the workers.",
        ),
        click.option(
            "--dask",
            metavar="ADDRESS",
            help="Read and fold on a cluster of Dask: the address of its scheduler, such as "
            "tcp://scheduler:8786.",
        ),
        click.option(
            "--workers",
            default=1,
            show_default=True,
            type=click.IntRange(min=1),
            help="Processes that read and fold; also the maximum of concurrent queries.",
        ),
    ):
        command = option(command)
    return command


def parse_options(
    workers: int, dask: str | None, concurrency: int | None, patience: float
) -> CatchUpOptions:
    """Check the values of the options.

    Raises:
        click.UsageError: two of them exclude each other.
    """
    if dask is not None and workers > 1:
        raise click.UsageError("--workers and --dask exclude each other")
    return CatchUpOptions(workers, dask, concurrency, patience)


@contextmanager
def opened(context: Context) -> Iterator[tuple[Engine, Archive]]:
    """Open the engine and the archive, and close both at the end.

    Raises:
        StatscacheError: no archive is configured, or the database cannot be used.
    """
    settings = context.settings
    archive = open_archive(settings.datagrepper_endpoint, settings.archive_files)
    if archive is None:
        raise StatscacheError(
            "there is no archive to fill in history from: set statscache.datagrepper.endpoint or "
            "statscache.archive.files"
        )
    try:
        engine = context.engine()
        try:
            yield engine, archive
        finally:
            engine.close()
    finally:
        archive.close()


def fill_in(
    context: Context,
    engine: Engine,
    archive: Archive,
    idents: frozenset[str] | None,
    options: CatchUpOptions,
    patience: float | None = None,
) -> tuple[int, list[str]]:
    """Move the lanes of ``idents`` (default: all) up to now.

    ``patience``: see :meth:`CatchUp.run_until_complete`. Returns the number of messages that were
    read, and the idents that could not join the others yet.

    Raises:
        click.exceptions.Exit: interrupted.
        StatscacheError: the archive or the database stayed away for longer than the options allow.
    """
    polling = options.polling(context.settings)
    began = time.monotonic()
    with _stopped_by_signals() as stop, ProgressLine() as line, options.executor() as executor:

        def report(progress: Progress) -> None:
            line.show(lambda: _progress_text(progress, time.monotonic() - began))

        catch_up = CatchUp(
            engine,
            archive,
            polling,
            executor=executor,
            config=context.config,
            idents=idents,
            report=report,
            takes_over=True,
        )
        try:
            apart = _persist(catch_up, stop, patience, options.patience, line)
        finally:
            if stop.is_set():
                # Whatever else was raised: workers may have got the signal too. Raised inside the
                # block, so that the executor cancels what the other workers have not begun.
                raise click.exceptions.Exit(INTERRUPTED)
        line.end(_progress_text(catch_up.progress, time.monotonic() - began))
    return catch_up.progress.messages, apart


def finish_rebuild(
    context: Context,
    engine: Engine,
    archive: Archive,
    idents: frozenset[str],
    options: CatchUpOptions,
) -> int:
    """Fill in the rebuilt tables of ``idents`` until they have replaced the old ones.

    Returns the number of messages that were read.

    Raises:
        click.exceptions.Exit: interrupted.
        StatscacheError: the old rows are still in place; the text says why.
    """
    polling = options.polling(context.settings)
    # Other plugins may have counted messages that the archive does not show yet.
    longest = polling.lag + polling.overlap + _SLACK
    messages, _ = fill_in(context, engine, archive, idents, options, longest)
    engine.prune()
    failing = failures(engine, idents)
    waiting = _waiting(engine, idents) - set(failing)
    refuse_failures(failing)
    if waiting:
        raise StatscacheError(
            f"complete, but the old rows are still in place: {', '.join(sorted(waiting))}. The "
            "other plugins have counted messages that the archive does not return; the hub, or "
            "the same command, continues to compare until they agree"
        )
    return messages


def failures(engine: Engine, idents: frozenset[str] | None) -> dict[str, str]:
    """Those of ``idents`` (default: all) that are failing, with the reasons."""
    with engine.transaction() as connection:
        rows = read_plugins(connection, idents)
    return {ident: failure(row.error) for ident, row in rows.items() if row.state == FAILING}


def refuse_failures(failing: dict[str, str]) -> None:
    """Raise an error that lists the plugins of :func:`failures`, if there are any.

    Raises:
        StatscacheError: with an ident and a reason in each line.
    """
    if failing:
        lines = [f"{ident}: {error}" for ident, error in sorted(failing.items())]
        raise StatscacheError("not complete:\n" + "\n".join(lines))


def _waiting(engine: Engine, idents: Iterable[str]) -> set[str]:
    """Those of ``idents`` whose rebuilt tables have not replaced the old ones yet."""
    with engine.transaction() as connection:
        rows = read_plugins(connection, idents)
    return {ident for ident, row in rows.items() if row.shadow is not None}


def _persist(
    catch_up: CatchUp,
    stop: threading.Event,
    patience: float | None,
    retry_for: float,
    line: ProgressLine,
) -> list[str]:
    """Run ``catch_up``; retry after failures for ``retry_for`` seconds without progress."""
    pause = _FIRST_PAUSE
    since = 0.0
    before = -1
    while True:
        try:
            return catch_up.run_until_complete(stop, patience=patience)
        except (ArchiveUnavailable, DatabaseUnavailable) as error:
            now = time.monotonic()
            if catch_up.progress.messages > before:
                pause, since, before = _FIRST_PAUSE, now, catch_up.progress.messages
            if now - since + pause > retry_for:
                raise StatscacheError(
                    f"{error}. Progress is committed: repeat the command to continue"
                ) from error
            line.interrupt(f"{error}; next try in {pause:.0f} s")
        if stop.wait(pause):
            return []
        pause = min(2 * pause, _LONGEST_PAUSE)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set; the batch in progress is committed first."""
    stop = threading.Event()
    signals = 0

    def interrupt(*_: object) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            raise KeyboardInterrupt
        # Streams and events are not reentrant, and the signal may have interrupted their use.
        os.write(2, b"\nStopping after the current batch; press Ctrl-C again to stop at once.\n")
        threading.Thread(target=stop.set).start()

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if signals:
            echo("Interrupted: progress is committed; repeat the command to continue.", err=True)


def _progress_text(progress: Progress, seconds: float) -> str:
    # A static archive ends before the present.
    end = progress.until or time.time()
    lanes = []
    for name, watermark in progress.watermarks.items():
        since = progress.since.get(name, watermark)
        share = min((watermark - since) / (end - since), 1.0) if end > since else 1.0
        when = to_the_minute(watermark).removesuffix(" UTC")
        lanes.append(f"{name} {when} {share:.1%}")
    rate = progress.messages / seconds if seconds > 0 else 0.0
    return f"{', '.join(lanes)}; {progress.messages:,} messages, {rate:,.0f}/s"
