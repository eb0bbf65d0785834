"""A table of results, each beside the floor that it is compared with."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """A rate, and what share it is of the rate of its floor."""

    name: str
    rate: float
    unit: str
    floor: str = ""
    ratio: float | None = None


def show(title: str, results: list[Result]) -> None:
    """Print the results of one benchmark."""
    width = max(len(result.name) for result in results)
    print(f"\n{title}")
    for result in results:
        ratio = f"{result.ratio:7.3f} of {result.floor}" if result.ratio is not None else ""
        print(f"  {result.name:{width}}  {result.rate:12,.0f} {result.unit:12}  {ratio}".rstrip())


def median_seconds(run: Callable[[], object], times: int = 5) -> float:
    """The median of the seconds that ``run`` takes, after one run that is not counted."""
    run()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)
