"""The moksha consumer: takes in every message of the bus, and starts what counts them.

How moksha works: the hub's reactor thread receives, a worker thread of the pool calls
:meth:`StatscacheConsumer.consume`, and another thread of the pool polls the producer in a loop.
It handles SIGINT and SIGHUP, without waking up the reactor, but not SIGTERM.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import types
from typing import Any

import fedmsg.consumers
import fedmsg.encoding
from moksha.hub.reactor import reactor

from statscache import about
from statscache.archive import Archive, open_archive
from statscache.audit.background import Audit
from statscache.catchup.loop import CatchUp
from statscache.catchup.polling import Polling
from statscache.clock import SYSTEM
from statscache.config import Settings
from statscache.counting.engine import Engine
from statscache.errors import DatabaseUnavailable, PluginTooSlow, StatscacheError, described
from statscache.hub import signatures
from statscache.hub.intake import Intake
from statscache.hub.startup_report import report_startup
from statscache.hub.supervision import Supervisor
from statscache.logs.records import Rarely, make_printable
from statscache.plugins.installed import discovery
from statscache.rejection import SIGNATURE

log = logging.getLogger(__name__)


class StatscacheConsumer(fedmsg.consumers.FedmsgConsumer):
    """Takes in every message of the bus."""

    topic = "*"
    config_key = "statscache.consumer.enabled"
    # We decode ourselves, several times faster and not in the thread of the reactor.
    jsonify = False

    intake: Intake
    supervisor: Supervisor

    def __init__(self, hub: Any) -> None:
        if not hub.config.get(self.config_key):
            super().__init__(hub)
            return
        _log_like_fedmsg()
        try:
            self._prepare(hub)
            # From here on it listens; what arrives waits in memory.
            super().__init__(hub)
            self._guard_frames()
            self._start_threads(hub.config)
        except StatscacheError as error:
            # moksha would log an exception and run on without us.
            raise SystemExit(f"statscache: {error}") from error
        except Exception as error:
            log.exception("statscache cannot start")
            raise SystemExit("statscache: cannot start, see the log") from error

    def _prepare(self, hub: Any) -> None:
        """Make the intake, without a query to the database."""
        self._settings = Settings.from_config(hub.config)
        signatures.check(hub.config, SYSTEM)
        about.configure(hub.config)
        # Before moksha asks for the pool: it starts with the size that it has then.
        reactor.callWhenRunning(_make_room_for_threads, hub)
        self._installed = discovery.discover(hub.config)
        self._archive = open_archive(
            self._settings.datagrepper_endpoint, self._settings.archive_files
        )
        self._engine = Engine.from_settings(self._settings, self._installed)
        report_startup(self._engine.database, self._installed, self._archive, hub.config)
        self.supervisor = Supervisor(
            lambda reason: self._engine.note_end(reason), _interrupt, SYSTEM
        )
        self.frequency = self._settings.frequency
        self.intake = Intake(self._engine, self._settings.batch_size, self._settings.buffer_size)

    def _start_threads(self, config: Any) -> None:
        """Start the threads that count, as soon as there is a database."""
        self.supervisor.start(
            "statscache-time-limit", lambda: self._engine.enforce_time_limit(self._give_up)
        )
        try:
            self._engine.open()
        except DatabaseUnavailable as error:
            log.error("the database is away, and what arrives waits for it: %s", error)
        self._stopping = threading.Event()
        self._catching_up = None
        if self._archive is not None:
            self._catching_up = _start_catching_up(
                self._engine, self._archive, self._settings, config, self._stopping, self.supervisor
            )
        # Not in moksha's threads: its own queue, from which they take messages, is unbounded.
        self.intake.start(self.supervisor.start)
        _stop_on_sigterm()
        # Behind the pool's threads, which shut down "during": nothing is put in after this.
        reactor.addSystemEventTrigger("after", "shutdown", self._close)

    def _give_up(self, idents: tuple[str, ...], text: str, thread: int) -> None:
        """End the process because a plugin does not end; other threads commit first."""
        fault = PluginTooSlow(
            f"it does not end: {text}", idents, self._engine.time_limit.limit or 0.0
        )
        log.critical(
            "a plugin does not end: %s",
            text,
            exc_info=(PluginTooSlow, fault, _traceback_of(thread)),
        )
        self._engine.abandon()
        engine = Engine.from_settings(self._settings, self._installed)
        # Opened by the former engine: this one must not launch plugins.
        engine.is_open = self._engine.is_open
        try:
            engine.quarantine(fault)
        except DatabaseUnavailable as error:
            log.error(
                "the plugin cannot be quarantined, so that it gets its messages again: %s", error
            )
        self._engine = engine
        self.intake.replace_engine(engine)
        self.supervisor.fail(f"the plugin {', '.join(idents)} does not end")

    def validate(self, message: Any) -> None:
        """Check the signature, if fedmsg's configuration says so.

        moksha calls this twice per message, in the threads of the reactor and of the worker, which
        gets no message that was refused before. The bus may bring it more than once all the same.
        """
        if self.validate_signatures:
            try:
                super().validate(message)
            except Exception as error:
                self.intake.reject(_body(message), f"{SIGNATURE}: {error}", once=True)
                raise RuntimeWarning(str(error)) from error

    def consume(self, message: Any) -> None:
        """Take in one message: the JSON text of a fedmsg dict."""
        self.intake.accept(_body(message))
        if self.intake.is_full:
            self.intake.wake()

    def stop(self) -> None:
        """Called by the hub in its signal handler; what is being counted is committed later."""
        self.supervisor.is_ending = True
        super().stop()
        # Twisted sleeps until the next message otherwise.
        reactor.wakeUp()

    def _close(self) -> None:
        self.supervisor.is_ending = True
        self._stopping.set()
        self.intake.close()
        if self._catching_up is not None:
            # It may be waiting for the archive, which can be asked again: nothing is lost.
            self._catching_up.join(timeout=2.0)
        self._engine.close()
        log.info("statscache has stopped")

    def _work_loop(self) -> None:
        # moksha's thread that calls consume().
        with self.supervisor.guard("of the consumer"):
            super()._work_loop()

    def _guard_frames(self) -> None:
        """Keep the frames that moksha cannot decode, and would drop with a log of Twisted's."""
        for extension in self.hub.extensions:
            for connection in getattr(extension, "subscriber_factories", {}).values():
                connection.gotMessage = _guarded(connection.gotMessage, self.intake)


def _body(message: Any) -> str | bytes:
    body = message.body if hasattr(message, "body") else message["body"]
    if isinstance(body, str | bytes):
        return body
    # Other transports of moksha, and fedmsg's own replay, pass decoded bodies.
    return str(fedmsg.encoding.dumps(body))


def _guarded(got_message: Any, intake: Intake) -> Any:
    def guard(*parts: Any) -> None:
        try:
            got_message(*parts)
        except (UnicodeDecodeError, ValueError) as error:
            intake.reject(b" ".join(reversed(parts)), described(error))

    return guard


def _traceback_of(thread: int) -> types.TracebackType | None:
    """Where a thread is, as a traceback."""
    traceback = None
    frame = sys._current_frames().get(thread)
    while frame is not None:
        traceback = types.TracebackType(traceback, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return traceback


def _start_catching_up(
    engine: Engine,
    archive: Archive,
    settings: Settings,
    config: Any,
    stop: threading.Event,
    supervisor: Supervisor,
) -> threading.Thread:
    """Start a thread that catches up: the reactor's must not wait for an archive."""
    audit = Audit(engine, archive, settings.audit_budget, repairs=settings.audit_repairs)
    catch_up = CatchUp(engine, archive, Polling.from_settings(settings), config=config, audit=audit)

    def run() -> None:
        # Connect first, then fetch: what is sent in between comes by both ways.
        while not (reactor.running and engine.is_open) and not engine.clock.wait(stop, 0.05):
            pass
        catch_up.run_until_stopped(stop)
        audit.close()
        archive.close()

    return supervisor.start("statscache-catchup", run)


def _stop_on_sigterm() -> None:
    """Let systemd's signal do what Ctrl-C does."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: _interrupt())


def _interrupt() -> None:
    """Do what Ctrl-C does."""
    main = threading.main_thread().ident
    assert main is not None
    # Not to the process: another thread may get the signal, and the main one keep sleeping.
    signal.pthread_kill(main, signal.SIGINT)


def _make_room_for_threads(hub: Any) -> None:
    """Ensure a thread of the pool for each worker and poller: one without never runs."""
    workers = int(hub.config.get("moksha.workers_per_consumer", 1))
    needed = 1 + hub.num_producers + hub.num_consumers * workers
    pool = reactor.getThreadPool()
    if pool.max < needed:
        log.warning("moksha.threadpool_size is %d: raised to the %d needed", pool.max, needed)
        reactor.suggestThreadPoolSize(needed)


_TALKATIVE = (
    *("fedmsg.consumers", "fedmsg.crypto", "fedmsg.crypto.utils"),
    *("fedmsg.crypto.x509", "fedmsg.crypto.x509_ng", "fedmsg.crypto.gpg"),
)
"""Loggers that have lines for each message whose signature is checked."""


def _log_like_fedmsg() -> None:
    """Use the handlers of fedmsg's logger, unless the configuration names one for us."""
    make_printable()
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(Rarely(SYSTEM))
    logger = logging.getLogger("statscache")
    if not logger.handlers and not logging.getLogger().handlers:
        logger.handlers = list(logging.getLogger("fedmsg").handlers)
        logger.setLevel(logging.INFO)
