"""The tables of classic plugins, and how any table of a plugin is written as JSON and CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import DateTime, Integer, MetaData
from sqlalchemy.orm import DeclarativeBase, Mapped, class_mapper, mapped_column

from statscache.plugins.collation import PLAIN_TEXT
from statscache.times import unix_seconds


class Serializable:
    """What every model of a plugin can do with its rows."""

    @classmethod
    def columns(cls) -> list[str]:
        """The names of the columns, ``timestamp`` first and the rest as declared."""
        names = [str(attribute.key) for attribute in class_mapper(cls).column_attrs]
        return sorted(names, key=lambda name: name != "timestamp")

    @classmethod
    def served_columns(cls) -> list[str]:
        """The columns that clients see: all but the row number ``id``."""
        return [name for name in cls.columns() if name != "id"]

    @classmethod
    def to_json(cls, rows: Iterable[Any]) -> str:
        """Returns ``rows`` (instances or result rows) as a JSON array of objects.

        Times are UNIX seconds.
        """
        names = cls.served_columns()
        return orjson.dumps(
            [{name: plain(getattr(row, name)) for name in names} for row in rows],
            default=str,
        ).decode()

    @classmethod
    def to_csv(cls, rows: Iterable[Any]) -> str:
        """Returns ``rows`` as CSV (RFC 4180), a header first, times in UNIX seconds.

        Text that a spreadsheet would run is made :func:`harmless`.
        """
        names = cls.served_columns()
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(names)
        writer.writerows([harmless(plain(getattr(row, name))) for name in names] for row in rows)
        return text.getvalue()


def plain(value: Any) -> Any:
    """Returns ``value`` as JSON and CSV have it: a time is a number of UNIX seconds."""
    if isinstance(value, datetime):
        value = unix_seconds(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


_RUN = "=+@\\-\uff1d\uff0b\uff0d\uff20"
"""Characters at the start of text that a spreadsheet takes for a formula; the last four are the
wide forms."""

_BEFORE_RUN = re.compile(rf'^(?=[{_RUN}\t\r\n])|(?<=[;\t\r\n])(?="*[{_RUN}])')


def harmless(value: Any) -> Any:
    """Returns ``value``, with an apostrophe before text that a spreadsheet would run.

    Anybody can put ``=HYPERLINK(...)`` into a message of the bus. Numbers stay numbers.

    A spreadsheet may take ``;`` or a tab for the end of a cell, and then ignores quotes inside a
    cell, and line ends within them: what follows one of these may be the beginning of a cell.
    """
    return _BEFORE_RUN.sub("'", value) if isinstance(value, str) else value


class BaseModel(Serializable, DeclarativeBase):
    """The base of the models of classic plugins: a row number and a time in UTC (naive).

    A subclass sets ``__tablename__`` and adds its columns.
    """

    metadata = MetaData()

    id: Mapped[int] = mapped_column(Integer, primary_key=True, sort_order=-2)
    timestamp: Mapped[datetime] = mapped_column(DateTime, nullable=False, index=True, sort_order=-1)


class ScalarModel(BaseModel):
    """One number per point in time."""

    __abstract__ = True

    scalar: Mapped[int] = mapped_column(Integer, nullable=False)


class CategorizedModel(BaseModel):
    """One number per category and point in time."""

    __abstract__ = True

    category: Mapped[str] = mapped_column(PLAIN_TEXT, nullable=False, index=True)
    scalar: Mapped[int] = mapped_column(Integer, nullable=False)

    @classmethod
    def collate(cls, instances: Iterable[Any]) -> dict[float, dict[str, int]]:
        """The numbers of rows by time (UNIX seconds), in their order, and then by category.

        Each time has all the categories that there are; those without a row are 0.
        """
        rows = list(instances)
        categories = dict.fromkeys(row.category for row in rows)
        times: dict[float, dict[str, int]] = {}
        for row in rows:
            numbers = times.setdefault(plain(row.timestamp), dict.fromkeys(categories, 0))
            numbers[row.category] = row.scalar
        return times


class CategorizedLogModel(BaseModel):
    """Log entries, each of one category."""

    __abstract__ = True

    category: Mapped[str] = mapped_column(PLAIN_TEXT, nullable=False, index=True)
    message: Mapped[str] = mapped_column(PLAIN_TEXT, nullable=False)


class ConstrainedCategorizedLogModel(CategorizedLogModel):
    """Log entries of which a category keeps one per constraint."""

    __abstract__ = True

    category_constraint: Mapped[str | None] = mapped_column(PLAIN_TEXT, nullable=True)
