"""``python -m benchmarks.answers --before CHECKOUT --after CHECKOUT``: do they answer alike?

Ends with status 1 when an answer or a row differs, or when the API has a route or a parameter that
is not asked for here.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.answers.trial import BACKENDS, run


def main(arguments: list[str]) -> int:
    """Compare and print; returns the status to end with."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.answers", description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout")
    parser.add_argument(
        "--after", type=Path, default=Path(), help="another one; the present folder"
    )
    parser.add_argument("--database", choices=(*BACKENDS, "both"), default="both")
    parser.add_argument("--every", type=int, default=1, help="ask only each so many-th request")
    given = parser.parse_args(arguments)
    backends = BACKENDS if given.database == "both" else {given.database: BACKENDS[given.database]}
    return run(given.before, given.after, backends, given.every)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
