"""fedmsg's configuration, for programs that start in a folder."""

from __future__ import annotations

import pprint
from pathlib import Path
from typing import Any


def configure(folder: Path, **config: Any) -> None:
    """Let programs that start in ``folder`` find these keys, and no others of ours."""
    place = folder / "fedmsg.d"
    place.mkdir(exist_ok=True)
    imports = "import datetime\n" if "datetime" in repr(config) else ""
    (place / "test.py").write_text(f"{imports}config = {pprint.pformat(config)}\n")
