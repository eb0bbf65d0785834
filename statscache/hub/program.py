"""The stock ``fedmsg-hub``, which runs only with a valid configuration and our consumer."""

from __future__ import annotations

from typing import Any

import fedmsg.commands.hub
import moksha.hub
from moksha.hub.reactor import reactor

from statscache.config import Settings
from statscache.errors import ConfigurationError, StatscacheError
from statscache.hub.producer import consumer_of


class _StockHub(fedmsg.commands.hub.HubCommand):
    """``fedmsg-hub`` with a configuration that was read already, without command-line options."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._given = config
        super().__init__()

    def get_config(self) -> dict[str, Any]:
        # The defaults of its two options.
        options = {"moksha.livesocket.websocket.port": None, "explicit_hub_consumers": None}
        # fedmsg-hub sets up the log before it imports us; here our loggers are there already.
        logging = {"disable_existing_loggers": False} | self._given.get("logging", {"version": 1})
        return options | self._given | {"logging": logging}


def run_hub(config: dict[str, Any]) -> None:
    """Run the hub until it is told to end, with all the consumers that are installed.

    Args:
        config: fedmsg's configuration, with fedmsg's defaults.

    Raises:
        ConfigurationError: it names a key that would let the hub run for nothing.
        StatscacheError: the hub came up without our consumer, and has been stopped.
        SystemExit: our consumer could not start.
    """
    check(config)
    import_consumer()
    came_up_without_us: list[bool] = []

    def stop_if_empty() -> None:
        if consumer_of(moksha.hub._hub) is None:
            came_up_without_us.append(True)
            moksha.hub._hub.stop()
            reactor.stop()

    reactor.callWhenRunning(stop_if_empty)
    _StockHub(config).execute()
    if came_up_without_us:
        raise StatscacheError(
            "the hub did not load the consumer of statscache, so that nothing would have been "
            "counted; why is said above. Is statscache installed in this environment, and all "
            "that it requires ('pip check')?"
        )


def check(config: dict[str, Any]) -> None:
    """Check that a hub with this configuration has something to do.

    Raises:
        ConfigurationError: a key is wrong; the message names it, and the cure.
    """
    settings = Settings.from_config(config)
    if not settings.consumer_enabled:
        raise ConfigurationError(
            "statscache.consumer.enabled is not True, so that the hub would count nothing: set it "
            "in a file in fedmsg.d/ ('statscache config' writes one)"
        )
    if config.get("zmq_enabled", True) and not any(config.get("endpoints", {}).values()):
        raise ConfigurationError(
            "endpoints names no address of the bus, so that the hub would hear nothing: name those "
            'of the services that publish, such as {"relay": ["tcp://relay.example.org:9940"]}'
        )


def import_consumer() -> None:
    """Import what moksha will load; it would only log that it cannot, and run on.

    Raises:
        StatscacheError: something that it needs is not installed.
    """
    try:
        # Here, not at the top: what its imports raise is caught, and they take a second.
        import statscache.hub.consumer  # noqa: F401
    except ImportError as error:
        raise StatscacheError(
            f"the hub cannot load the consumer of statscache: {error}; install what is missing, or "
            "reinstall statscache with all that it requires ('pip check' lists what is not there)"
        ) from error
