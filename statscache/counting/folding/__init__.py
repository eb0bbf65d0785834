"""What messages add to the tables of plugins: folded here, or by workers, and written."""
