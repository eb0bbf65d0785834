"""Whether two checkouts of statscache answer the same requests with the same bytes."""
