"""Distributions of other people, made for one test."""

from __future__ import annotations

from pathlib import Path


def distribute(
    folder: Path, name: str, code: str, group: str = "statscache.plugin", **points: str
) -> Path:
    """Install a module as a distribution of its own; gives the folder, for ``PYTHONPATH``.

    ``points`` are the entry points of ``group``: name to the attribute of the module.
    """
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.py").write_text(code)
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"{point} = {name}:{attribute}\n" for point, attribute in points.items()]
    (metadata / "entry_points.txt").write_text(f"[{group}]\n" + "".join(lines))
    return folder
