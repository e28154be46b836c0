"""scitq: a distributed task queue for science."""

__version__ = "0.9.0"
