"""What tests stand on: services, programs, databases, archives, messages, expected tables."""
