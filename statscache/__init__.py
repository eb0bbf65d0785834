"""Statistics and latest values of everything that happens on a message bus, served as JSON."""

__version__ = "1.0.0.dev0"
