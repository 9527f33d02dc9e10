"""The Postgres from a wheel: its server, who may enter it, and the read-only role."""
