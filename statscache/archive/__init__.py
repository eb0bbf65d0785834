"""Archives of the bus: what has happened, as far back as they go."""

from statscache.archive.base import Archive, Slice, Window
from statscache.archive.datagrepper import DatagrepperArchive
from statscache.archive.files import FileArchive
from statscache.archive.reading import read

__all__ = [
    "Archive",
    "DatagrepperArchive",
    "FileArchive",
    "Slice",
    "Window",
    "open_archive",
    "read",
]


def open_archive(endpoint: str | None, files: tuple[str, ...] = ()) -> Archive | None:
    """The archive that a configuration names; None where it names none."""
    if files:
        return FileArchive(files)
    return DatagrepperArchive(endpoint) if endpoint else None
