"""What ``backfill`` and ``rebuild`` share: who does it, how far it is, and how it ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from statscache.archive import Archive, open_archive
from statscache.catchup import executors
from statscache.catchup.loop import CatchUp, Pace, Progress
from statscache.cli.context import Context
from statscache.cli.display import Display
from statscache.cli.terminal import echo
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.errors import ArchiveUnavailable, DatabaseUnavailable, StatscacheError

F = TypeVar("F", bound=Callable[..., Any])

PATIENCE = 300.0
"""Seconds for which a command goes on trying, unless it is told otherwise."""

INTERRUPTED = 130
"""The status with which a command ends that Ctrl-C has ended."""

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class Means:
    """With what the archive is read.

    Attributes:
        workers: processes of this machine; 1 is this process itself.
        dask: the address of a cluster's scheduler, instead.
        concurrency: windows under way at a time; None: as the other two suggest.
        endurance: seconds for which it is tried again while the archive or the database is away.
    """

    workers: int = 1
    dask: str | None = None
    concurrency: int | None = None
    endurance: float = PATIENCE

    def pace(self, settings: Settings) -> Pace:
        """How the archive is asked."""
        pace = Pace.from_settings(settings)
        # Windows that wait for a worker cost the archive nothing, and no worker waits for us.
        suggested = 2 * self.workers if self.workers > 1 else pace.concurrency
        return replace(pace, concurrency=self.concurrency or max(suggested, pace.concurrency))

    @contextmanager
    def executor(self) -> Iterator[Executor | None]:
        """Where windows are folded; None: in threads of this process."""
        if self.dask is not None:
            with executors.dask(self.dask) as executor:
                yield executor
        elif self.workers > 1:
            with executors.processes(self.workers) as executor:
                yield executor
        else:
            yield None


def options(command: F) -> F:
    """The options that say with what the archive is read."""
    for option in (
        click.option(
            "--patience",
            default=PATIENCE,
            show_default=True,
            type=click.FloatRange(min=0),
            help="Seconds for which to go on trying while the archive or the database is away.",
        ),
        click.option(
            "--concurrency",
            type=click.IntRange(min=1),
            help="Windows of the archive under way at a time; "
            "statscache.archive.concurrency, or twice the workers, when absent.",
        ),
        click.option(
            "--dask",
            metavar="ADDRESS",
            help="Let a cluster of Dask read and fold: the address of its scheduler, such as "
            "tcp://scheduler:8786.",
        ),
        click.option(
            "--workers",
            default=1,
            show_default=True,
            type=click.IntRange(min=1),
            help="Processes that read and fold; so many questions are asked at a time at most.",
        ),
    ):
        command = option(command)
    return command


def means(workers: int, dask: str | None, concurrency: int | None, patience: float) -> Means:
    """What :func:`options` say."""
    if dask is not None and workers > 1:
        raise click.UsageError("--workers and --dask exclude each other")
    return Means(workers, dask, concurrency, patience)


@contextmanager
def opened(context: Context) -> Iterator[tuple[Engine, Archive]]:
    """The engine and the archive.

    Raises:
        StatscacheError: there is no archive, or another cause that its text names.
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
    means: Means,
    patience: float | None = None,
) -> tuple[int, list[str]]:
    """Move the lanes of ``idents`` (all when absent) up to now.

    Gives the number of messages that were read, and which idents could not join the others yet.
    ``patience``: see :meth:`CatchUp.run_until_complete`.

    Raises:
        click.exceptions.Exit: it was interrupted.
        StatscacheError: a cause that its text names.
    """
    pace = means.pace(context.settings)
    began = time.monotonic()
    with _stopped_by_signals() as stop, Display() as display, means.executor() as executor:

        def report(progress: Progress) -> None:
            display.show(lambda: _line(progress, time.monotonic() - began))

        catch_up = CatchUp(
            engine,
            archive,
            pace,
            executor=executor,
            config=context.config,
            idents=idents,
            report=report,
            takes_over=True,
        )
        try:
            apart = _persist(catch_up, stop, patience, means.endurance, display)
        finally:
            if stop.is_set():
                # Whatever else went wrong: workers may have been told to end as well. Inside the
                # block, so that those which were not do not end what nobody waits for.
                raise click.exceptions.Exit(INTERRUPTED)
        display.end(_line(catch_up.progress, time.monotonic() - began))
    return catch_up.progress.messages, apart


def _persist(
    catch_up: CatchUp,
    stop: threading.Event,
    patience: float | None,
    endurance: float,
    display: Display,
) -> list[str]:
    """Run ``catch_up``, and again after trouble, unless it never gets any further."""
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
            if now - since + pause > endurance:
                raise StatscacheError(
                    f"{error}. What was done is committed: repeat the command to go on"
                ) from error
            display.say(f"{error}; next try in {pause:.0f} s")
        if stop.wait(pause):
            return []
        pause = min(2 * pause, _LONGEST_PAUSE)


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set: what is in hand is committed first."""
    stop = threading.Event()
    signals = 0

    def interrupt(*_: object) -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            raise KeyboardInterrupt
        # Neither a stream nor an event may be used by what interrupts their use.
        os.write(2, b"\nEnding with what is in hand; a second Ctrl-C does not wait for that.\n")
        threading.Thread(target=stop.set).start()

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if signals:
            echo("Interrupted: what was done is committed; repeat the command to go on.", err=True)


def _line(progress: Progress, seconds: float) -> str:
    # A static archive ends before the present.
    end = progress.target or time.time()
    lanes = []
    for name, until in progress.until.items():
        since = progress.since.get(name, until)
        share = min((until - since) / (end - since), 1.0) if end > since else 1.0
        when = datetime.fromtimestamp(until, UTC).strftime("%Y-%m-%d %H:%M")
        lanes.append(f"{name} {when} {share:.1%}")
    rate = progress.messages / seconds if seconds > 0 else 0.0
    return f"{', '.join(lanes)}; {progress.messages:,} messages, {rate:,.0f}/s"
