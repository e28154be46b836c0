"""Tests of scitq; `tests.lib` holds what they share."""
