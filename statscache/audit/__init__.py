"""Compare the tables with the archive: on demand, and continuously in the background."""
