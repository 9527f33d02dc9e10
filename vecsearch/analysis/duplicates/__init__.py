"""Near-duplicates: pairs found and confirmed, and joined into groups."""
