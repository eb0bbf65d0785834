"""Messages by the packages that they are about."""

from __future__ import annotations

from statscache.plugins import Key, Message, Row
from statscache_plugins.volume.counter import Counter


class VolumeByPackage(Counter):
    """Counts a message once for each package that it is about."""

    name = "volume, by package"
    summary = "the number of messages by the packages that they are about"
    description = (
        "How many messages were about each source package in each window of time. A message that "
        "is about several packages counts once for each of them, one about none for none."
    )
    keys = (Key("package", role="package"),)

    def rows(self, message: Message) -> list[Row]:
        """One for each package."""
        return [(package, 1) for package in message.packages]
