"""The plugins that come with statscache: a folder per area of the bus."""
