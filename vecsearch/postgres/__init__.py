"""The database: connections, tables, the register of collections, migrations."""
