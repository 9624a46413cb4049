"""Days of the log as files, byte for byte those that `LogStore` writes, and what the database says of them."""
