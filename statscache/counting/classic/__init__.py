"""What exists for the sake of classic plugins alone; could be taken away with them."""
