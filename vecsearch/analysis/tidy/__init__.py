"""What is done to duplicates' files, and undone: planned, journaled in Postgres, reversible."""
