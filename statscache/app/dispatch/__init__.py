"""From a request to its response, alike for all routes."""
