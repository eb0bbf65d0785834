"""Clients that wait for a change."""
