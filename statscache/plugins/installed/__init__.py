"""Which plugins are installed: found, checked, and what is wrong with the others."""
