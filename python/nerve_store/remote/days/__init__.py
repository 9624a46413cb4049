"""Days of a log on SQLite whose files lie in an object store."""
