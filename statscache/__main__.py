"""``python -m statscache`` is the command line."""

from statscache.cli import main

main()
