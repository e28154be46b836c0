"""Ctrl-C that comes too early."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from scitq.util import interrupts


def test_cli_08_an_early_interrupt_waits_until_it_is_allowed() -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        interrupts.put_off()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            interrupts.allow()
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        signal.signal(signal.SIGINT, before)


def test_cli_08_an_interrupt_where_nothing_can_be_raised_is_raised_right_after() -> None:
    program = """
import os, signal, sys
from scitq.util import interrupts
signal.signal(signal.SIGINT, signal.default_int_handler)
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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (130, b"")
