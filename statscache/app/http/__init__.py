"""HTTP: requests, parameters, answers."""
