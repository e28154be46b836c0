"""Object storages behind one interface."""
