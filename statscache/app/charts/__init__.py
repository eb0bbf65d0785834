"""Numbers over time: which buckets, made of which tables, merged how."""
