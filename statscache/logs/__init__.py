"""What log lines look like, and how often one is written."""
