"""The connection, the tables of the framework, and what is written to them how."""
