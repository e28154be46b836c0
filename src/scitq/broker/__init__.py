"""The server: one loop, one database, and the threads that serve it."""
