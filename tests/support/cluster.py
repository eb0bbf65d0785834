"""A cluster of Dask on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def dask_address(workers: int) -> Iterator[str]:
    """The address of its scheduler."""
    # Optional, and costly.
    import distributed

    with distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        dashboard_address="127.0.0.1:0",
        silence_logs=50,
        host="127.0.0.1",
    ) as running:
        yield running.scheduler_address
