"""What release engineering does: composes, updates, cloud images, image builds."""

from statscache_plugins.releng.event_logs import ReleaseEngineeringEventLogs

plugins = (ReleaseEngineeringEventLogs,)
