"""The database: schema, migrations, queries."""

from rotator.adapters.store.connect import SqlStore, open_store

__all__ = ["SqlStore", "open_store"]
