"""Every SQL statement, by noun."""
