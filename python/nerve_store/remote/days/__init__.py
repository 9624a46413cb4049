"""Days of a log whose files lie in an object store."""
