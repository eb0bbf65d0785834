"""Where the tests find things."""

from pathlib import Path

TESTS = Path(__file__).parent.parent
ROOT = TESTS.parent
DATA = TESTS / "data"
SUPPORT = TESTS / "support"
BUS_MESSAGES = DATA / "bus-messages.jsonl"
