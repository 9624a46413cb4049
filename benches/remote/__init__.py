"""The log on PostgreSQL beside what a user would write instead, on the same server in the same run."""
