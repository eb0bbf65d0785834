"""Rows of several tables, merged: per bucket, per key, or both.

The database merges the rows of each piece of a bucket, which it finds by an index; the few numbers
that are left of each bucket are merged here. Both do it by the rules that the plugin declares.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    func,
    literal,
    select,
    true,
    union_all,
)

from statscache.app.charts.lines import Line, Numbers, Ranked, Without, plain
from statscache.app.charts.sources import Measure, Part, SourceTable
from statscache.app.charts.sources import keys as key_columns
from statscache.app.charts.statements import Statements, others
from statscache.app.charts.taken import is_taken, taken
from statscache.app.state.filters import Filters


class Aggregation:
    """Reads and merges rows; a :class:`~statscache.app.charts.lines.Reading`.

    Args:
        connection: in which all is of one moment.
        filters: that the rows must pass.
        measures: the columns of numbers.
    """

    def __init__(
        self, connection: Connection, filters: Filters, measures: Sequence[Measure]
    ) -> None:
        self._connection = connection
        self._measures = measures
        self._statements = Statements(connection, filters)

    joins_buckets = True

    @property
    def lines(self) -> Sequence[Line]:
        """One of each column."""
        return [Line(each.name, each.merge, each.rule.adds_up) for each in self._measures]

    @property
    def details(self) -> Mapping[str, Any]:
        """What an answer says of them besides: nothing."""
        return {}

    def in_buckets(
        self, parts: Iterable[Part], without: Without | None = None
    ) -> dict[int, Numbers]:
        """The numbers of each bucket that has rows, by the number of the bucket.

        Args:
            without: a column, and keys in it whose rows are left out.
        """
        folded = _Fold(self._measures, parts := self._statements.existing(parts))
        for part in parts:
            for place, *row in self._statements.execute(partial(self._per_piece, part, without)):
                # Latest values are one bucket, which has no pieces.
                folded.add(part.pieces[place].number if part.pieces else 0, row)
        return folded.result()

    def in_buckets_by_key(
        self, parts: Iterable[Part], by: str, keys: Sequence[Any]
    ) -> dict[tuple[int, Any], Numbers]:
        """The numbers of each bucket and each of ``keys`` in the column ``by`` that have rows."""
        folded = _Fold(self._measures, parts := self._statements.existing(parts))
        for part in parts:
            for place, key, *row in self._statements.execute(
                partial(self._per_key, part, by, keys)
            ):
                folded.add((part.pieces[place].number, key), row)
        return folded.result()

    def keys(self, parts: Iterable[Part], by: str, most: int) -> list[Any]:
        """The keys in the column ``by`` that have rows, sorted; no more than ``most`` of them."""
        parts = self._statements.existing(parts)
        if not parts:
            return []
        table = self._rows(parts, by).subquery()
        return sorted(self._connection.scalars(select(table.c.key).distinct().limit(most)))

    def ranking(self, parts: Iterable[Part], by: str, limit: int) -> tuple[list[Ranked], int]:
        """The ``limit`` keys of the largest numbers, and how many keys there are.

        The number is that of the first measure. Of equal ones, the smaller key comes first.
        """
        parts = self._statements.existing(parts)
        if not parts:
            return [], 0
        found = self._statements.execute(partial(self._largest, parts, by, limit))
        count = found[0][2] if found else 0
        return [Ranked(key, plain(value)) for key, value, _ in found], count

    # Statements.

    def _per_piece(self, part: Part, without: Without | None) -> Select[Any]:
        source, clauses = part.source, []
        if without is not None:
            clauses.append(others(source.columns[without[0]], without[1]))
        if not source.width:
            clauses += self._statements.between(source, *part.between)
            return select(literal(0), *self._values(source, clauses))
        pieces = self._statements.pieces(part)
        clauses += self._statements.within(source, pieces.start, pieces.stop)
        values = self._values(source, clauses, pieces.table)
        return select(pieces.place, *values).select_from(pieces.table)

    def _per_key(self, part: Part, by: str, keys: Sequence[Any]) -> Select[Any]:
        column = part.source.columns[by]
        pieces, wanted = self._statements.pieces(part), self._statements.wanted(column, keys)
        key = wanted.c.key
        within = self._statements.within(part.source, pieces.start, pieces.stop)
        values = self._values(part.source, [*within, column == key], pieces.table, wanted)
        everything = pieces.table.join(wanted, true())
        return select(pieces.place, key, *values).select_from(everything)

    def _largest(self, parts: Sequence[Part], by: str, limit: int) -> Select[Any]:
        table, rule = self._rows(parts, by).subquery(), self._measures[0].rule
        source = parts[0].source
        if not source.width and key_columns(source.dataset) == (by,):
            # Each row is a key of its own: there is nothing to merge, and few need be sorted.
            count = select(func.count()).select_from(self._rows(parts, by).subquery())
            statement = select(table.c.key, table.c.value, count.scalar_subquery())
            return statement.order_by(table.c.value.desc().nulls_last(), table.c.key).limit(limit)
        if is_taken(rule):
            (decision,) = taken(self._measures[:1], source)
            columns = [table.c[f"taken_{place}"] for place, _ in enumerate(decision.names)]
            order = decision.order(source, columns)
            rank = func.row_number().over(partition_by=table.c.key, order_by=order)
            ranked = select(table.c.key, table.c.value, rank.label("rank")).subquery()
            merged = select(ranked.c.key, ranked.c.value).where(ranked.c.rank == 1).subquery()
        else:
            value = self._statements.merged(rule, table.c.value).label("value")
            merged = select(table.c.key, value).group_by(table.c.key).subquery()
        statement = select(merged.c.key, merged.c.value, func.count().over())
        return statement.order_by(merged.c.value.desc().nulls_last(), merged.c.key).limit(limit)

    # The parts of statements.

    def _values(
        self, source: SourceTable, clauses: Sequence[ColumnElement[bool]], *outer: Any
    ) -> list[Any]:
        """A subquery for each column of :class:`_Fold`, which refers to the tables ``outer``."""
        conditions = (*clauses, *self._statements.clauses(source))
        found = [
            select(self._statements.merged(measure.rule, source.columns[measure.name]))
            for measure in self._measures
            if not is_taken(measure.rule)
        ]
        if any(measure.optional for measure in self._measures):
            # Rows that know nothing yet are rows all the same.
            found.insert(0, select(func.max(source.timestamp)))
        for decision in taken(self._measures, source):
            columns = decision.columns(source)
            order = decision.order(source, columns)
            found += [select(column).order_by(*order).limit(1) for column in columns]
        return [query.where(*conditions).correlate(*outer).scalar_subquery() for query in found]

    def _rows(self, parts: Iterable[Part], by: str) -> Any:
        """All the rows of ``parts``, unmerged, with the columns ``key`` and ``value``.

        Behind them is what tells which value is taken, where that matters.
        """
        measure = self._measures[0]
        selects = []
        for part in parts:
            source, lag = part.source, part.source.lag
            columns = [source.columns[by].label("key"), source.columns[measure.name].label("value")]
            for decision in taken([measure], source):
                deciding = enumerate(decision.columns(source))
                columns += [column.label(f"taken_{place}") for place, column in deciding]
            conditions = [*self._statements.clauses(source)]
            if source.columns[by].nullable:
                conditions.append(source.columns[by].is_not(None))
            if not source.width:
                conditions += self._statements.between(source, *part.between)
                selects.append(select(*columns).where(*conditions))
            for piece in part.pieces:
                ends = (literal(end + lag) for end in (piece.start, piece.stop))
                within = self._statements.within(source, *ends)
                selects.append(select(*columns).where(*within, *conditions))
        return union_all(*selects) if len(selects) > 1 else selects[0]


class _Fold:
    """Merges the rows of pieces into those of buckets.

    A row has a time where values are optional, the merged columns of the measures, and then what
    is taken from one message: its time, and all such columns of its row.
    """

    def __init__(self, measures: Sequence[Measure], parts: Sequence[Part]) -> None:
        rules = [measure.rule for measure in measures if not is_taken(measure.rule)]
        first = 1 if any(measure.optional for measure in measures) else 0
        self._rules = list(enumerate(rules, first))
        self._decisions = []
        places: dict[str, int] = {}
        end = first + len(rules)
        for decision in taken(measures, parts[0].source) if parts else []:
            self._decisions.append((decision, end, end + len(decision.names)))
            places |= {name: end + place for place, name in enumerate(decision.names)}
            end += len(decision.names)
        merged = iter(range(first, end))
        self._places = [
            places[measure.name] if is_taken(measure.rule) else next(merged)
            for measure in measures
            if parts
        ]
        self._rows: dict[Any, list[Any]] = {}

    def add(self, key: Any, row: list[Any]) -> None:
        """Merge ``row`` into what ``key`` has."""
        if all(value is None for value in row):
            return
        known = self._rows.setdefault(key, row)
        if known is row:
            return
        for place, rule in self._rules:
            known[place] = rule.merge_in_order(known[place], row[place])
        for decision, start, stop in self._decisions:
            if decision.beats(row[start:stop], known[start:stop]):
                known[start:stop] = row[start:stop]

    def result(self) -> dict[Any, Numbers]:
        """The numbers of each key, in the order of the measures."""
        return {
            key: tuple(plain(row[place]) for place in self._places)
            for key, row in self._rows.items()
        }
