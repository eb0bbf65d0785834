"""Fill a database by the command line of a checkout, in all the ways that need no bus."""

from __future__ import annotations

from pathlib import Path

from benchmarks.answers.checkouts import Checkout

_FIRST = ("answers-shapes", "answers-gone")
_THEN = ("answers-shapes",)


def fill(checkout: Checkout, cwd: Path, uri: str, messages: Path) -> None:
    """Replay files, fill in history from an archive, replay late messages, and count one anew."""

    def run(plugins: tuple[str, ...], *command: str) -> None:
        checkout.run(cwd, uri, plugins, *command)

    run(_FIRST, "db", "upgrade")
    run(_FIRST, "replay", "--batch-size", "150", str(messages / "first.jsonl"))
    run(_THEN, "backfill", "--patience", "5")
    run(_THEN, "replay", "--batch-size", "60", str(messages / "late.jsonl"))
    run(_THEN, "rebuild", "--force", "--patience", "5", "volume-by-topic-1d")
