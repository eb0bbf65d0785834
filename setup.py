"""The metadata is in pyproject.toml; here is what only code can say."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    # What "statscache config" writes; distributions have it in /usr/share/statscache.
    data_files=[
        ("share/statscache", ["statscache.wsgi"]),
        ("share/statscache/fedmsg.d", sorted(map(str, Path("fedmsg.d").glob("*.py")))),
    ],
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
