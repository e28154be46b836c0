"""Asking a person: prompts on /dev/tty, so that stdout stays data (contract AUTH-4, AUTH-5)."""

from __future__ import annotations

import os
import signal
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from scitq.errors import UsageError


def _open() -> int | None:
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
    except OSError:
        return None


def has_terminal() -> bool:
    """Whether somebody can be asked."""
    descriptor = _open()
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _leave(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@contextmanager
def _signals() -> Iterator[None]:
    """Signals that end the program do so through Python, so that the terminal is put right; also when a parent had ignored Ctrl-C."""
    old = {number: signal.signal(number, _leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    old[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def _read_line(descriptor: int) -> str:
    data = b""
    while not data.endswith(b"\n"):
        piece = os.read(descriptor, 4096)
        if not piece:
            raise KeyboardInterrupt
        data += piece
    return data.decode("utf-8", "surrogateescape").rstrip("\r\n")


def ask(prompt: str, *, is_secret: bool = False) -> str:
    """The line that a person types at `prompt`; not echoed when `is_secret`. Ctrl-C and Ctrl-D raise KeyboardInterrupt."""
    descriptor = _open()
    if descriptor is None:
        raise UsageError("there is no terminal to ask on")
    try:
        with _signals():
            os.write(descriptor, prompt.encode())
            if not is_secret:
                return _read_line(descriptor)
            before = termios.tcgetattr(descriptor)
            silent = list(before)
            silent[3] &= ~(termios.ECHO | termios.ECHONL)
            try:
                termios.tcsetattr(descriptor, termios.TCSAFLUSH, silent)
                return _read_line(descriptor)
            finally:
                termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
                os.write(descriptor, b"\n")
    finally:
        os.close(descriptor)


def _one_line(data: bytes, source: str) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"the password {source} is not UTF-8") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text or "\n" in text or "\0" in text:
        raise UsageError(f"the password {source} must be one line, and not empty")
    return text


def password_from(*, is_stdin: bool, file: str | None) -> str | None:
    """The password of stdin or of a file (its first and only line); None when neither was meant."""
    if is_stdin and file:
        raise UsageError("give --password-stdin or --password-file, not both")
    if is_stdin:
        return _one_line(sys.stdin.buffer.read(), "on stdin")
    if file:
        try:
            data = Path(file).read_bytes()
        except OSError as error:
            raise UsageError(f"the password file {file} can't be read: {error.strerror}") from None
        return _one_line(data, f"in {file}")
    return None


def new_password(*, is_stdin: bool, file: str | None) -> str:
    """A password to be set: from stdin or a file, else asked twice on the terminal."""
    given = password_from(is_stdin=is_stdin, file=file)
    if given is not None:
        return given
    if not has_terminal():
        raise UsageError("there is no terminal to ask for the password on; give --password-stdin or --password-file FILE")
    first = ask("New password: ", is_secret=True)
    if not first:
        raise UsageError("the password is empty")
    if ask("Again: ", is_secret=True) != first:
        raise UsageError("the two passwords differ")
    return first
