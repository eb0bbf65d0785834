"""The metadata is in pyproject.toml; here is what only code can say."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["statscache", "statscache.*"]),
        *find_packages(include=["statscache_plugins", "statscache_plugins.*"]),
        # The migrations are installed too, under a name that does not hide Alembic itself.
        "statscache_migrations",
        "statscache_migrations.versions",
    ],
    package_dir={
        "statscache_migrations": "alembic",
        "statscache_migrations.versions": "alembic/versions",
    },
)
