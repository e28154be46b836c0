"""Ctrl-C that comes too early, or where nothing can be raised. In processes of their own: a signal must not meet the tests' workers."""

from __future__ import annotations

import subprocess
import sys

HEAD = """
import os, signal, sys
from scitq.util import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
"""


def ended(program: str) -> tuple[int, bytes, bytes]:
    """Status, stdout and stderr of a Python program."""
    done = subprocess.run([sys.executable, "-c", HEAD + program], capture_output=True, timeout=60, check=False)
    return done.returncode, done.stdout, done.stderr


def test_cli_08_an_early_interrupt_waits_until_it_is_allowed() -> None:
    program = """
interrupts.put_off()
os.kill(os.getpid(), signal.SIGINT)
print("put off", flush=True)
try:
    interrupts.allow()
    for _ in range(10**9):
        pass
except KeyboardInterrupt:
    sys.exit(130)
"""
    assert ended(program) == (130, b"put off\n", b"")


def test_cli_08_an_interrupt_where_nothing_can_be_raised_is_raised_right_after() -> None:
    program = """
interrupts.allow()
class Noisy:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
try:
    Noisy()
    for _ in range(10**9):
        pass
except KeyboardInterrupt:
    sys.exit(130)
"""
    assert ended(program) == (130, b"", b"")
