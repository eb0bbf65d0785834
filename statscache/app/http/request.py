"""The parts of an HTTP request that an answer may depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import quote


class Request(NamedTuple):
    """The texts are WSGI strings: bytes, as characters of Latin-1."""

    scheme: str
    host: str
    root: str
    path: str
    query: str
    accept: str
    accept_encoding: str

    @classmethod
    def from_environ(cls, environ: Mapping[str, Any]) -> Request:
        """The request of a WSGI environment."""
        get = environ.get
        return cls(
            environ["wsgi.url_scheme"],
            get("HTTP_HOST") or f"{environ['SERVER_NAME']}:{environ['SERVER_PORT']}",
            get("SCRIPT_NAME", ""),
            get("PATH_INFO", "/"),
            get("QUERY_STRING", ""),
            get("HTTP_ACCEPT", ""),
            get("HTTP_ACCEPT_ENCODING", ""),
        )

    @property
    def base(self) -> tuple[str, str, str]:
        """What links begin with: a client that asks at another address gets other ones."""
        return self.scheme, self.host, self.root

    @property
    def address(self) -> str:
        """The URL up to the query, escaped so that it can stand in a header and in HTML."""
        path = quote((self.root + self.path).encode("latin-1"), safe="/")
        return f"{self.scheme}://{quote(self.host, safe=':[]')}{path}"
