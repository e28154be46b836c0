"""A terminal for tests: a command in a session of its own with a pseudo-terminal to control it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence
from typing import Any

DEADLINE_S = 60.0


class Terminal:
    """One command; what it writes to the terminal gathers in `seen`, what it writes to stdout (unless that is the terminal) in `out`."""

    def __init__(
        self, argv: Sequence[str], environment: dict[str, str], *, is_stdout_terminal: bool = False, rows: int = 24, columns: int = 80
    ) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self._slave = slave
        self.seen = ""

        def take_terminal() -> None:
            os.setsid()
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
            for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGTTOU):
                signal.signal(number, signal.SIG_DFL)

        options: dict[str, Any] = {"stdin": slave, "stderr": slave, "stdout": slave if is_stdout_terminal else subprocess.PIPE}
        self.process = subprocess.Popen(list(argv), env=environment, preexec_fn=take_terminal, **options)

    def _read(self, wait_s: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], wait_s)
        if not ready:
            return False
        with contextlib.suppress(OSError):
            self.seen += os.read(self.master, 65536).decode("utf-8", "replace")
        return True

    def expect(self, text: str) -> None:
        """Wait until the terminal has shown `text`."""
        end = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} never came; seen: {self.seen!r}"
            self._read(0.2)
            if text not in self.seen and self.process.poll() is not None:
                while self._read(0.2):
                    pass
                assert text in self.seen, f"the command ended before {text!r} came; seen: {self.seen!r}"

    def is_echoing(self) -> bool:
        return bool(termios.tcgetattr(self._slave)[3] & termios.ECHO)

    def wait_silent(self) -> None:
        """Wait until what is typed is not shown."""
        end = time.monotonic() + DEADLINE_S
        while self.is_echoing():
            assert time.monotonic() < end, "echo was never turned off"
            time.sleep(0.02)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def end(self) -> tuple[int, str]:
        """Wait for the command's end: its status and its stdout."""
        out = b""
        end = time.monotonic() + DEADLINE_S
        while self.process.poll() is None:
            assert time.monotonic() < end, f"it does not end; seen: {self.seen!r}"
            self._read(0.05)
            if self.process.stdout is not None and select.select([self.process.stdout], [], [], 0)[0]:
                out += os.read(self.process.stdout.fileno(), 65536)
        while self._read(0.1):
            pass
        if self.process.stdout is not None:
            out += self.process.stdout.read()
        return self.process.returncode, out.decode("utf-8", "replace")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        for descriptor in (self.master, self._slave):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
