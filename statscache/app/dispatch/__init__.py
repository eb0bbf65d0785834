"""From a request to its reply, alike for all routes."""
