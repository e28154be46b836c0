"""Logging of the daemons: one line a record, on stderr, with UTC time."""

from __future__ import annotations

import logging
import sys
import time


def set_up(level: str = "INFO") -> None:
    """Send the records of every module logger to stderr at `level`."""
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger("scitq")
    root.handlers[:] = [handler]
    root.setLevel(level)
    root.propagate = False
