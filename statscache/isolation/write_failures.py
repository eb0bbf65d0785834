"""Which plugins cannot write: logged with its traceback once, however many batches follow."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from statscache.clock import Clock
from statscache.errors import described
from statscache.logs.recurring import Recurring

log = logging.getLogger(__name__)


class WriteFailures:
    """The plugins that could not write when they last tried."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failing: dict[tuple[str, ...], Recurring] = {}

    def note_failure(self, idents: tuple[str, ...], error: BaseException) -> None:
        """The rows of a plugin could not be written."""
        failures = self._failing.setdefault(idents, Recurring(self._clock))
        kind = type(error).__name__
        is_new = failures.is_new(kind)
        if failures.happened(kind):
            log.error(
                "the rows of %s cannot be written: %s",
                ", ".join(idents),
                described(error),
                exc_info=error if is_new else None,
            )

    def note_success(self, changed: Iterable[str]) -> None:
        """The rows of these idents were written."""
        for idents in [each for each in self._failing if not {*each}.isdisjoint(changed)]:
            del self._failing[idents]
            log.info("the rows of %s can be written again", ", ".join(idents))
