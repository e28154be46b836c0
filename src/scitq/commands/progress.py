"""One line on a terminal that shows how far something is; nothing at all elsewhere."""

from __future__ import annotations

import sys

from scitq.util import clock

_REDRAW_S = 0.1


class Progress:
    """A line on stderr, drawn at most ten times a second."""

    def __init__(self, what: str, *, is_wanted: bool = True) -> None:
        self._what = what
        self._is_on = is_wanted and sys.stderr.isatty()
        self._drawn_s = 0.0
        self._is_drawn = False

    def show(self, done: int, total: int, note: str = "") -> None:
        """Draw the line anew."""
        now = clock.monotonic_s()
        if not self._is_on or (now - self._drawn_s < _REDRAW_S and done < total):
            return
        self._drawn_s = now
        width = 24
        filled = width * done // total if total else width
        sys.stderr.write(f"\r\x1b[K{self._what} [{'#' * filled}{'.' * (width - filled)}] {done}/{total} {note}")
        sys.stderr.flush()
        self._is_drawn = True

    @property
    def is_on(self) -> bool:
        """Whether anything is drawn."""
        return self._is_on

    def end(self) -> None:
        """Take the line away."""
        if self._is_drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
            self._is_drawn = False
