"""Write tables to files: one for each ident and calendar month, and a manifest of their sums.

The same rows become the same bytes, in any database and at any time, so that two rebuilds are
compared by comparing their manifests.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa
from sqlalchemy import Connection, inspect
from sqlalchemy.orm import class_mapper

from statscache.database import tables
from statscache.database.connection import Database
from statscache.database.definitions import definition_of
from statscache.errors import StatscacheError
from statscache.people import People, people_of
from statscache.plugins.collation import ordered_alike
from statscache.plugins.installed.discovery import Dataset
from statscache.times import aware

CSV = "csv"
NDJSON = "ndjson"
FORMATS = (CSV, NDJSON)

MANIFEST = "manifest.json"

_UNFINISHED = ".statscache-export"
"""The folder, in that of the export, where files are until all of them are complete."""

_ROWS_AT_ONCE = 5_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LARGEST_EXACT = 2**53
_NEEDS_QUOTES = re.compile(r'[",\r\n]')

Render = Callable[[Sequence[Any]], str]
Report = Callable[[str, int], None]


@dataclass
class File:
    """A file of the export: rows of one ident and month.

    Attributes:
        month: such as ``2015-10``, in UTC.
        first, last: the smallest and the largest timestamp of its rows, UNIX seconds.
        sha256: of its bytes, in hexadecimal.
    """

    name: str
    month: str
    first: float = 0
    last: float = 0
    rows: int = 0
    bytes: int = 0
    sha256: str = ""


@dataclass
class Exported:
    """What was written of one ident; without rows there are no files."""

    ident: str
    columns: list[str]
    files: list[File] = field(default_factory=list)


@dataclass
class Export:
    """All that was written.

    Attributes:
        start, stop: which rows, by their timestamps; UNIX seconds, None: without limit.
        removed: files of the export that was there before, and that this one has not.
    """

    format: str
    start: float | None
    stop: float | None
    datasets: list[Exported] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    @property
    def files(self) -> list[File]:
        """Those of all the idents."""
        return [file for dataset in self.datasets for file in dataset.files]

    def manifest(self) -> str:
        """What tells two exports apart: nothing in it depends on when, where or how it was made."""
        content = {
            "format": self.format,
            "start": self.start,
            "stop": self.stop,
            "datasets": [asdict(dataset) for dataset in self.datasets],
        }
        return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def export(
    database: Database,
    datasets: Sequence[Dataset],
    folder: Path,
    *,
    format_: str = CSV,
    start: float | None = None,
    stop: float | None = None,
    report: Report | None = None,
) -> Export:
    """Write the rows of ``datasets`` into ``folder``, as they all are at one moment.

    An export that is there already is replaced when this one is complete; other files are not.

    Args:
        database: opened read-only.
        format_: one of :data:`FORMATS`.
        start: rows of this time or later, UNIX seconds; None: without limit.
        stop: rows earlier than this.
        report: called now and then with an ident, and the number of rows written in all.

    Raises:
        StatscacheError: there are other files in the way, the files cannot be written, or a table
            is still that of another definition of its plugin.
        DatabaseUnavailable: the export that was there before is there still.
    """
    made = Export(format_, start, stop)
    try:
        with _folder(folder) as (unfinished, ours):
            _refuse_others(folder / MANIFEST, ours)
            with _one_moment(database, datasets) as connection:
                for dataset in sorted(datasets, key=lambda dataset: dataset.ident):
                    writer = _Writer(connection, dataset, made, folder, unfinished, ours)
                    made.datasets.append(writer.write(report))
            _replace(folder, unfinished, made, ours)
    except OSError as error:
        where = error.filename or str(folder)
        raise StatscacheError(f"cannot write {where}: {error.strerror or error}") from error
    return made


@contextmanager
def _folder(folder: Path) -> Iterator[tuple[Path, set[str]]]:
    """A folder for what is unfinished, and the names of the files that are ours to replace."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StatscacheError(f"another export is writing into {folder}") from error
        unfinished = folder / _UNFINISHED
        # One that ended while it replaced files had its manifest there before.
        ours = _names(folder / MANIFEST) | _names(unfinished / MANIFEST)
        if unfinished.exists():
            shutil.rmtree(unfinished)
        unfinished.mkdir()
        try:
            yield unfinished, ours
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    finally:
        os.close(descriptor)


def _names(manifest: Path) -> set[str]:
    """The files of the export whose manifest it is, and that itself; none if it is no manifest."""
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        names = {file["name"] for each in content["datasets"] for file in each["files"]}
    except (OSError, ValueError, LookupError, TypeError):
        return set()
    # The manifest is not trusted: only files of that folder.
    return {name for name in names if Path(name).name == name} | {MANIFEST}


def _refuse_others(path: Path, ours: set[str]) -> None:
    if path.name not in ours and path.exists():
        raise StatscacheError(
            f"{path} is there, and not of an earlier export: choose another folder with --output"
        )


def _replace(folder: Path, unfinished: Path, made: Export, ours: set[str]) -> None:
    """Let what is complete take its place."""
    (unfinished / MANIFEST).write_text(made.manifest(), encoding="utf-8")
    names = [file.name for file in made.files]
    for name in names:
        (unfinished / name).replace(folder / name)
    made.removed = sorted(ours - {*names, MANIFEST})
    for name in made.removed:
        (folder / name).unlink(missing_ok=True)
    (unfinished / MANIFEST).replace(folder / MANIFEST)


@contextmanager
def _one_moment(database: Database, datasets: Sequence[Dataset]) -> Iterator[Connection]:
    """A transaction that sees all the tables as they are at one moment."""
    names = [dataset.model.__table__.name for dataset in datasets]
    with database.begin() as connection:
        existing = set(inspect(connection).get_table_names())
    with database.begin() as connection:
        if database.backend == "postgresql":
            # Before the transaction sees anything: a table that took the place of another one
            # after that moment would seem to hold a part of its rows.
            quote = connection.dialect.identifier_preparer.quote
            locked = [quote(name) for name in [*names, tables.plugin.name] if name in existing]
            connection.exec_driver_sql(f"LOCK TABLE {', '.join(locked)} IN ACCESS SHARE MODE")
        _refuse_other_definitions(connection, datasets)
        yield connection


def _refuse_other_definitions(connection: Connection, datasets: Sequence[Dataset]) -> None:
    row = tables.plugin.c
    query = sa.select(row.ident, row.definition)
    known = {each.ident: each.definition for each in connection.execute(query)}
    changed = [
        dataset.ident
        for dataset in datasets
        if known.get(dataset.ident) not in (None, definition_of(dataset))
    ]
    if changed:
        raise StatscacheError(
            f"the tables of {', '.join(sorted(changed))} are still those of an earlier release of "
            "the plugin: wait until the hub has rebuilt them, or run 'statscache backfill'"
        )


class _Writer:
    """Writes the files of one dataset."""

    def __init__(
        self,
        connection: Connection,
        dataset: Dataset,
        made: Export,
        folder: Path,
        unfinished: Path,
        ours: set[str],
    ) -> None:
        self._connection = connection
        self._ident = dataset.ident
        self._made = made
        self._folder = folder
        self._unfinished = unfinished
        self._ours = ours
        self._table = dataset.model.__table__
        self._timestamp = self._table.c.timestamp
        is_aggregate = dataset.declaration is not None
        attributes = class_mapper(dataset.model).column_attrs
        # Omit the row number of a classic table: it only says in which order rows were written.
        names = [name for name in dataset.model.columns() if is_aggregate or name != "id"]
        self._columns = {name: attributes[name].columns[0] for name in names}
        order = list(self._table.primary_key) if is_aggregate else list(self._columns.values())
        self._order = [ordered_alike(column, connection.dialect) for column in order]
        self._converters = [_converter(column) for column in self._columns.values()]
        # Bots are there: who is one may change, and the statistics about humans are the API's.
        self._shown = People(hidden=people_of(dataset.plugin).hidden).shown(dataset)

    def write(self, report: Report | None) -> Exported:
        """Write them into the folder of what is unfinished."""
        exported = Exported(self._ident, list(self._columns))
        done = sum(file.rows for file in self._made.files)
        # The hub creates the table of a newly installed plugin when it starts.
        if inspect(self._connection).has_table(self._table.name):
            for month, start, stop in self._months():
                file = File(f"{self._ident}-{month}.{self._made.format}", month)
                _refuse_others(self._folder / file.name, self._ours)
                for rows in self._write_month(file, start, stop):
                    if report is not None:
                        report(self._ident, done + rows)
                done += file.rows
                exported.files.append(file)
        return exported

    def _months(self) -> Iterator[tuple[str, float, float]]:
        """The months of which there are rows, each with the time of it that is asked for."""
        start, stop = self._made.start, self._made.stop
        while True:
            oldest = self._connection.scalar(
                self._between(sa.select(sa.func.min(self._timestamp)), start, stop)
            )
            if oldest is None:
                return
            first = _moment(oldest).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
            following = (first + timedelta(days=31)).replace(day=1)
            bounds = [_seconds(first), _seconds(following)]
            month = (
                (bounds[0] if start is None else max(bounds[0], start)),
                (bounds[1] if stop is None else min(bounds[1], stop)),
            )
            yield f"{first:%Y-%m}", *month
            start = bounds[1]

    def _write_month(self, file: File, start: float, stop: float) -> Iterator[int]:
        """Yields the number of rows written so far."""
        query = sa.select(*self._columns.values()).order_by(*self._order)
        result = self._connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(
            self._between(query, start, stop)
        )
        render, header = _renderer(self._made.format, list(self._columns))
        place = list(self._columns).index("timestamp")
        digest = hashlib.sha256()
        with (self._unfinished / file.name).open("wb") as binary:
            _put(binary, digest, file, header)
            for some in result.partitions():
                rows = [self._plain(row) for row in some]
                times = [row[place] for row in rows]
                file.first = min(times) if not file.rows else min(file.first, *times)
                file.last = max(times) if not file.rows else max(file.last, *times)
                file.rows += len(rows)
                _put(binary, digest, file, "".join(map(render, rows)))
                yield file.rows
        file.sha256 = digest.hexdigest()

    def _plain(self, row: Any) -> list[Any]:
        return [
            value if convert is None or value is None else convert(value)
            for convert, value in zip(self._converters, row, strict=True)
        ]

    def _between(self, query: Any, start: float | None, stop: float | None) -> Any:
        if start is not None:
            query = query.where(self._timestamp >= self._stored(start))
        if stop is not None:
            query = query.where(self._timestamp < self._stored(stop))
        return query.where(*self._shown)

    def _stored(self, seconds: float) -> Any:
        """A time as the table has it."""
        type_ = self._timestamp.type
        if isinstance(type_, sa.DateTime):
            moment = _EPOCH + timedelta(seconds=seconds)
            return moment if type_.timezone else moment.replace(tzinfo=None)
        # PostgreSQL does not search an index of integers for a float.
        return -int(-seconds // 1) if isinstance(type_, sa.Integer) else seconds


def _put(binary: IO[bytes], digest: Any, file: File, text: str) -> None:
    content = text.encode("utf-8", "surrogatepass")
    binary.write(content)
    digest.update(content)
    file.bytes += len(content)


# How values are written: the same, whichever driver they come from.


def _converter(column: Any) -> Callable[[Any], Any] | None:
    """What makes plain values of those of a column; None where they are."""
    type_ = column.type
    if isinstance(type_, sa.TypeDecorator | sa.Enum):
        return _plain
    if isinstance(type_, sa.Integer | sa.String):
        return None
    return _plain


def _plain(value: Any) -> Any:
    """``value`` as None, a bool, an int, a float, a string, or a list or dict of those.

    A time is a number of UNIX seconds, as the API has it.
    """
    match value:
        case Enum():
            return value.name
        case None | bool() | int() | str():
            return value
        case float():
            return _number(value)
        case datetime():
            return _number(_seconds(_moment(value)))
        case date() | time_of_day():
            return value.isoformat()
        case timedelta():
            return _number(value.total_seconds())
        case Decimal():
            return f"{value.normalize():f}" if value.is_finite() else str(value)
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case dict():
            return {str(key): _plain(value[key]) for key in sorted(value, key=str)}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return str(value)


def _number(value: float) -> Any:
    if value.is_integer() and abs(value) < _LARGEST_EXACT:
        return int(value)
    return value if value - value == 0 else str(value)


def _moment(value: Any) -> datetime:
    if isinstance(value, datetime):
        return aware(value)
    return _EPOCH + timedelta(seconds=value)


def _seconds(moment: datetime) -> float:
    return (moment - _EPOCH) / timedelta(seconds=1)


def _renderer(format_: str, columns: list[str]) -> tuple[Render, str]:
    """What makes a line of a row, and what comes before the first."""
    if format_ == CSV:
        return _csv_line, _csv_line(columns)
    encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
    return lambda row: encode(dict(zip(columns, row, strict=True))) + "\n", ""


def _csv_line(row: Sequence[Any]) -> str:
    return ",".join(map(_csv_field, row)) + "\r\n"


def _csv_field(value: Any) -> str:
    """As in RFC 4180; NULL is an empty field, and empty text is ``""``."""
    if value is None:
        return ""
    if type(value) is not str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, int | float):
            return repr(value)
        value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = str(value)
    if not text or _NEEDS_QUOTES.search(text):
        return '"' + text.replace('"', '""') + '"'
    return text
