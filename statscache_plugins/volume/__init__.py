"""How many messages there are: in all, and by what they are about."""

from statscache_plugins.volume.by_category import VolumeByCategory
from statscache_plugins.volume.by_package import VolumeByPackage
from statscache_plugins.volume.by_topic import VolumeByTopic
from statscache_plugins.volume.by_user import VolumeByUser
from statscache_plugins.volume.total import Volume

plugins = (Volume, VolumeByCategory, VolumeByPackage, VolumeByTopic, VolumeByUser)
