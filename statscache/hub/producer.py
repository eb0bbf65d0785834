"""The moksha producer: lets the consumer's intake commit, again and again.

moksha loads consumers first, and continues without one that cannot be imported. This module imports
almost nothing, so that it can be loaded even then, and notice.
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import moksha.hub.api.producer

log = logging.getLogger(__name__)

_ENABLED = "statscache.consumer.enabled"


class StatscacheProducer(moksha.hub.api.producer.PollingProducer):
    """Lets the consumer's intake commit every ``statscache.producer.frequency``.

    Raises:
        SystemExit: the hub is to run our consumer and could not load it; it must not run on empty.
    """

    def __init__(self, hub: Any) -> None:
        consumer = consumer_of(hub)
        if consumer is None:
            if hub.config.get(_ENABLED):
                raise SystemExit(
                    "statscache: the hub could not load the consumer of statscache, so that "
                    "nothing would be counted; why is said above"
                )
            log.info("the consumer is disabled: nothing to flush")
            return
        self._intake = consumer.intake
        self._supervisor = consumer.supervisor
        self.frequency = consumer.frequency
        super().__init__(hub)

    def poll(self) -> None:
        """Wake the intake. It raises nothing: an exception would end moksha's loop."""
        self._intake.wake()

    def _work(self) -> None:
        # moksha's thread that calls poll().
        with self._supervisor.guard("of the producer"):
            super()._work()


def consumer_of(hub: Any) -> Any:
    """Our consumer in a hub of moksha; None where it has not been loaded."""
    module = sys.modules.get("statscache.hub.consumer")
    kind = getattr(module, "StatscacheConsumer", None)
    return next((c for c in hub.consumers if kind is not None and isinstance(c, kind)), None)
