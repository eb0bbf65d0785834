"""Compare the tables with the archive: on demand, and in the background, for ever."""
