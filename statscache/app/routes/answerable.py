"""What an ident can be asked for, which others cannot, and queries that ask for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from statscache.app.charts import latest, punch_card, quantiles, ranges, readings, sources
from statscache.app.dispatch import rankings
from statscache.app.state import filters
from statscache.people import People
from statscache.plugins.installed.discovery import Dataset


def answers(dataset: Dataset) -> dict[str, Any]:
    """Which of the questions that not every dataset can answer it can."""
    bins = quantiles.bins(dataset)
    is_added = any(measure.rule.adds_up for measure in sources.measures(dataset))
    has_buckets = dataset.schedule is not None
    is_read = has_buckets or latest.is_latest(dataset)
    # A column that is called so is a filter.
    is_read = is_read and "count" not in filters.columns(dataset)
    counted = readings.countable(dataset) if is_read else ()
    return {
        "count": list(counted),
        "quantile": [bins.name] if bins is not None and is_added and is_read else [],
        "hour_of_week": has_buckets and punch_card.suits(dataset) and (is_added or bool(counted)),
    }


def examples(
    who: People, dataset: Dataset, links: Mapping[str, str], answers: Mapping[str, Any]
) -> dict[str, str]:
    """Queries that work, by name."""
    found = {}
    chart = "series" if dataset.schedule is not None else "summary"
    points = "&points=12" if chart == "series" and ranges.merges(dataset) else ""
    if chart in links:
        for key in answers["count"][:1]:
            found["count"] = f"{links[chart]}?count={key}{points}"
        if answers["quantile"]:
            found["quantile"] = f"{links[chart]}?quantile=0.5,0.9{points}"
        if answers["hour_of_week"]:
            is_added = any(measure.rule.adds_up for measure in sources.measures(dataset))
            query = "" if is_added else f"&count={answers['count'][0]}"
            found["hour_of_week"] = f"{links[chart]}?resolution=hour-of-week{query}"
    if "top" in links:
        keys = sources.keys(dataset)
        by = next(key for key in keys if rankings.may_list(who, dataset, key))
        more = "&compare=previous&points=12" if chart == "series" else ""
        found["top"] = f"{links['top']}?by={by}&limit=5{more}"
    return found
