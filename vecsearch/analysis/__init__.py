"""What is learnt from a collection: evaluation, comparison, tuning, near-duplicates."""
