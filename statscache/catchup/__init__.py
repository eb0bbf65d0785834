"""Filling tables from the archive: at start, over and over, and for new plugins."""
