"""Ctrl-C that comes too early."""

from __future__ import annotations

import os
import signal

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
