"""Sessions: the settings that plain SQL needs, statements of the user's own, waits, and shards."""
