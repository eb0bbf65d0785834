"""The process that listens: the consumer on the bus, its intake, and its threads."""
