"""What the hub has committed: revisions, coverage, and the tables of the datasets."""
