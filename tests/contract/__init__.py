"""What every log can do, whatever lies beneath: each test runs on every backend that is installed.

What is about SQLite's files, or about PostgreSQL's server, is tested elsewhere.
"""
