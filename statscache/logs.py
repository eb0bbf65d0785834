"""Log lines, whoever writes them: what came from the bus cannot steer a terminal."""

from __future__ import annotations

import logging
import traceback
from typing import Any

from statscache.printable import printable


class Record(logging.LogRecord):
    """A record whose message is one line of printable text, and its traceback several."""

    def __init__(self, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        if self.exc_info and self.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*self.exc_info)).rstrip("\n")
            # Formatters take this, and make none themselves.
            self.exc_text = printable(text, keep="\n\t")

    def getMessage(self) -> str:  # noqa: N802 - the library's name
        """The message with its arguments."""
        return printable(super().getMessage())


def make_printable() -> None:
    """Let every logger of this process make such records, other people's loggers included.

    The topics and bodies of messages are in the lines of fedmsg and of moksha as well.
    """
    logging.setLogRecordFactory(Record)
