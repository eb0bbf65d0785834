"""Contributions to the projects on pagure.io."""

from statscache_plugins.pagure.by_project import ContributionsByProject
from statscache_plugins.pagure.by_user import ContributionsByUser
from statscache_plugins.pagure.total import Contributions

plugins = (Contributions, ContributionsByProject, ContributionsByUser)
