"""From a question to hits: one SQL statement, and the indexes that serve it."""
