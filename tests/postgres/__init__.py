"""The log on PostgreSQL: its server, its connections, its faults. What every log can do is in `contract/`."""
