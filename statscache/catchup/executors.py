"""Where windows of the archive are folded: processes of this machine, or a cluster of Dask's."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Executor, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from statscache.errors import StatscacheError

_PATIENCE = 10
"""Seconds in which the scheduler of a cluster must answer."""


@contextmanager
def processes(workers: int) -> Iterator[Executor]:
    """Start that many processes on this machine, until the end of the block.

    They have no state worth keeping: if the block is left by an exception, or the parent is killed,
    they end at once.
    """
    context = multiprocessing.get_context("spawn")
    # Nothing is written to it: that it ends is the sign, be it closed or its owner killed.
    sign, owned = context.Pipe(duplex=False)
    with _sigint_blocked():
        # What is started here inherits the mask: Ctrl-C, which a terminal sends to all of its
        # processes, is for the parent to deal with.
        executor = ProcessPoolExecutor(workers, context, _prepare_worker, (sign,))
        for _ in range(workers):
            executor.submit(_ready)
    try:
        yield executor
    except BrokenExecutor as error:
        raise StatscacheError(
            "a worker has died, perhaps because memory ran out. What was done is committed: repeat "
            "the command to go on, with fewer --workers"
        ) from error
    except BaseException:
        owned.close()
        raise
    finally:
        executor.shutdown(cancel_futures=True)
        owned.close()
        sign.close()


@contextmanager
def dask(address: str) -> Iterator[Executor]:
    """Connect to the Dask cluster whose scheduler is at ``address``, until the end of the block.

    Raises:
        StatscacheError: Dask is not installed, or the scheduler does not answer.
    """
    try:
        import distributed  # optional
    except ImportError as error:
        raise StatscacheError(
            f"Dask is not installed ({error}): pip install 'statscache[dask]', here and on the "
            "workers of the cluster"
        ) from error
    try:
        client: Any = distributed.Client(  # type: ignore[no-untyped-call]
            address, timeout=_PATIENCE, set_as_default=False
        )
    except (OSError, ValueError) as error:
        raise StatscacheError(
            f"no scheduler of Dask answers at {address!r}, which should be such as "
            f"tcp://scheduler:8786: {error}"
        ) from error
    with client:
        if not client.nthreads():
            raise StatscacheError(
                f"the scheduler at {address!r} has no workers: start some, on any machine, with "
                f"'dask worker {address}'"
            )
        try:
            # Not "pure": the same window, asked for again, may hold something else.
            yield client.get_executor(pure=False)
        except (CancelledError, distributed.KilledWorker) as error:
            raise StatscacheError(
                f"the cluster at {address!r} has lost what it worked on ({error!r}). What was done "
                "is committed: repeat the command to go on"
            ) from error


@contextmanager
def _sigint_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _prepare_worker(sign: Connection) -> None:
    """Let a worker ignore Ctrl-C, and end with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(sign,), daemon=True).start()


def _end_with(sign: Connection) -> None:
    sign.poll(None)
    os._exit(0)


def _ready() -> None:
    """Do nothing: submitting this starts a worker."""
