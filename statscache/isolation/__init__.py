"""What keeps a plugin from stopping or harming the others."""
