"""Ports as the command line takes them."""

from __future__ import annotations

import click

PORT = click.IntRange(0, 65_535)
"""Of TCP; 0 takes a free one."""
