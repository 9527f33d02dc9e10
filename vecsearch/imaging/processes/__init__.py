"""Worker processes: they decode what strangers made, within limits, and may be killed."""
