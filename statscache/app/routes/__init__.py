"""The routes of the API, one in a module."""
