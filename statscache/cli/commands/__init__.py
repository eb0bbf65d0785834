"""The subcommands of ``statscache``, one file each."""
