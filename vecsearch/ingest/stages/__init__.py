"""Where a run's files are read, decoded and embedded: on this machine, or on a Ray cluster."""
