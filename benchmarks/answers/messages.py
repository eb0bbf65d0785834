"""The messages that databases are filled with: real ones, made-up ones, and some that are none."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from statscache.demo import sample_messages

NOW = 1_700_051_696.25
"""The present of all processes: 2023-11-15 12:34:56.25, UTC."""

DAY = 86_400
EPOCH = NOW // DAY * DAY - 12 * DAY
"""From here on the archive has something."""

CORPUS = Path(__file__).parents[2] / "tests" / "data" / "bus-messages.jsonl"
"""Real messages, from 2012 on; some of them have no time or no id."""

# What is awkward in CSV, in JSON, in addresses, or in the order of texts.
_THINGS = (
    *("apple", "Apple", "äpfel", "zebra", "=1+1", "@sum", "-3", "a,b", 'say "so"', "two\nlines"),
    *("semi;=2", "", " blank", "a/b", "100%", "a&b=c", "<b>", "\u2028", "\U0001f34e", "x" * 300),
)
_SIZES = (0, 1, 2, 3, 7, 10, 255, 1_000, -5, 2**40)

_UNUSUAL = (
    "{",
    "[]",
    "null",
    '{"topic": "org.fedoraproject.prod.answers.thing"}',
    '{"topic": null, "timestamp": 1700000000, "msg": {}}',
    '{"topic": "org.fedoraproject.prod.answers.thing", "timestamp": "soon", "msg": {}}',
    '{"topic": "org.fedoraproject.prod.answers.thing", "timestamp": NaN, "msg": {}}',
    '{"topic": "org.fedoraproject.prod.answers.thing", "timestamp": 4000000000, "msg": {}}',
    '{"topic": "org.fedoraproject.prod.answers.five", "timestamp": 1700000001.5, "msg": 5}',
)


def write(folder: Path) -> None:
    """Write the files into ``folder``.

    ``first.jsonl`` is replayed first; ``archive.jsonl`` is an archive that has a part of it and
    more; ``late.jsonl`` is replayed in the end: older messages, and some that were counted before.
    """
    generator = random.Random(11)
    recent = _made_up(generator, 1_500, EPOCH - 2 * DAY, NOW - 30)
    years = _made_up(generator, 300, NOW - 800 * DAY, EPOCH - 2 * DAY)
    late = _made_up(generator, 200, NOW - 30 * DAY, NOW - 30)
    first = [*CORPUS.read_text().splitlines(), *years, *recent[:1_000:2], *_UNUSUAL]
    _write(folder / "first.jsonl", first)
    _write(folder / "archive.jsonl", recent)
    _write(folder / "late.jsonl", [*late, *recent[::50], *first[::40]])


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def _made_up(generator: random.Random, count: int, start: float, stop: float) -> list[str]:
    """``count`` messages, in the order of their times."""
    samples = sample_messages()
    times = sorted(round(generator.uniform(start, stop), 3) for _ in range(count))
    lines = []
    for number, timestamp in enumerate(times):
        raw = dict(generator.choice(samples)) if number % 3 else _thing(generator)
        raw["timestamp"] = timestamp
        raw.pop("msg_id", None)
        if number % 7:
            raw["msg_id"] = f"2023-{uuid.UUID(int=generator.getrandbits(128))}"
        lines.append(json.dumps(raw))
    return lines


def _thing(generator: random.Random) -> dict[str, Any]:
    things = [
        [generator.choice(_THINGS), generator.choice(_SIZES)]
        for _ in range(generator.randint(0, 3))
    ]
    msg = {"things": things, "said": generator.choice(_THINGS)}
    return {"topic": "org.fedoraproject.prod.answers.thing", "msg": msg, "i": 1}
