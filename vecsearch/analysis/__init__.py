"""Analysis of a stored collection: evaluation, comparison, tuning, near-duplicates."""
