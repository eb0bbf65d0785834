"""Commands, and what they say."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from statscache.cli import main
from statscache.config import URI_VARIABLE
from tests.support.hub import PROGRAMS


class Done(NamedTuple):
    """What became of a command."""

    returncode: int
    stdout: str
    stderr: str


def run(folder: Path, *arguments: str, uri: str = "", **environment: str) -> Done:
    """Run a command in a process of its own."""
    done = subprocess.run(
        [str(PROGRAMS / "statscache"), *arguments],
        cwd=folder,
        env=os.environ | ({URI_VARIABLE: uri} if uri else {}) | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def call(folder: Path, *arguments: str, uri: str = "", given: str = "") -> Done:
    """Run a command in this process, which takes a tenth of the time."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.chdir(folder))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        if uri:
            patch.setenv(URI_VARIABLE, uri)
        patch.setattr(sys, "argv", ["statscache", *arguments])
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(given.encode()))))
        out = stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
        err = stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        with pytest.raises(SystemExit) as ended:
            main()
    return Done(int(ended.value.code or 0), out.getvalue(), err.getvalue())
