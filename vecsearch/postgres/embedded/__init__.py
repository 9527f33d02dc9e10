"""The Postgres from a wheel: its server, who may connect, and the read-only role."""
