"""The embedded Postgres, from a wheel: its server, access rules, and the read-only role."""
