"""Clients who wait for a change."""
