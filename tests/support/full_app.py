"""The API of all the plugins that there are, with rows in every table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import flask
import pytest
from flask.testing import FlaskClient

from statscache.app.application import Application
from statscache.message import Message
from statscache.plugins.installed.discovery import Installed
from tests.support.bundled import NOW, counted, recent
from tests.support.distributions import DISTRIBUTION
from tests.support.messages import message


@dataclass
class FullApp:
    """An application of everything that is installed, and what it is made of."""

    uri: str
    app: flask.Flask

    @property
    def service(self) -> Application:
        found: Application = self.app.extensions["statscache"]
        return found

    @property
    def installed(self) -> Installed:
        """The bundled plugins, and those of others."""
        return self.service.installed

    def client(self) -> FlaskClient:
        return self.app.test_client()


def full_app(uri: str, corpus: Sequence[Message]) -> FullApp:
    """An application on what the real engine has counted of real messages."""
    # The corpus has none of this kind, which a plugin of others counts.
    edit = message("org.fedoraproject.prod.wiki.article.edit", NOW - 60, {"title": "Main Page"})
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(DISTRIBUTION)
        return FullApp(uri, counted(uri, [*recent(corpus), edit]))
