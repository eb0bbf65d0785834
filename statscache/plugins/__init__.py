"""Everything that the author of a plugin imports."""

from statscache.message import Message
from statscache.plugins.aggregate import Aggregate
from statscache.plugins.base import BasePlugin
from statscache.plugins.columns import Key, Value
from statscache.plugins.merges import Row
from statscache.plugins.models import (
    BaseModel,
    CategorizedLogModel,
    CategorizedModel,
    ConstrainedCategorizedLogModel,
    ScalarModel,
)
from statscache.plugins.schedule import Schedule
from statscache.plugins.threads import Future, Queue, asynchronous
from statscache.plugins.workers import AsyncPlugin

__all__ = [
    "Aggregate",
    "AsyncPlugin",
    "BaseModel",
    "BasePlugin",
    "CategorizedLogModel",
    "CategorizedModel",
    "ConstrainedCategorizedLogModel",
    "Future",
    "Key",
    "Message",
    "Queue",
    "Row",
    "ScalarModel",
    "Schedule",
    "Value",
    "asynchronous",
]
