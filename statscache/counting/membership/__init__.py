"""What is known of each plugin: its lane, how far back it goes, what it rejected."""
