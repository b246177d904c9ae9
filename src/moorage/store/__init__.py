"""State at rest: records in SQLite, and the data folder with its lock and run files."""
