"""Search: from a query to hits by one SQL statement, and the indexes that serve it."""
