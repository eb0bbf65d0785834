"""Everything that the author of a plugin imports."""

from statscache.message import Message
from statscache.plugins.aggregate import Aggregate, Key, Row, Value
from statscache.plugins.asynchronous import AsyncPlugin
from statscache.plugins.base import BasePlugin
from statscache.plugins.models import (
    BaseModel,
    CategorizedLogModel,
    CategorizedModel,
    ConstrainedCategorizedLogModel,
    ScalarModel,
)
from statscache.plugins.schedule import Schedule

__all__ = [
    "Aggregate",
    "AsyncPlugin",
    "BaseModel",
    "BasePlugin",
    "CategorizedLogModel",
    "CategorizedModel",
    "ConstrainedCategorizedLogModel",
    "Key",
    "Message",
    "Row",
    "ScalarModel",
    "Schedule",
    "Value",
]
