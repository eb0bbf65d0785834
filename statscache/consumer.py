"""The consumer, under the name by which installed configurations know it."""

from statscache.hub.consumer import StatscacheConsumer

__all__ = ["StatscacheConsumer"]
