"""Where things lie for this user: configuration, data, runtime and cache folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def _temporary() -> Path:
    import tempfile  # brings compression libraries along, which no quick command needs

    return Path(tempfile.gettempdir())


def _home() -> Path | None:
    """`$HOME`, else what the system knows of this user, when that is a folder to write in: daemons start without the variable."""
    named = os.environ.get("HOME")
    if named:
        return Path(named)
    import pwd

    with suppress(KeyError):
        home = Path(pwd.getpwuid(os.getuid()).pw_dir)
        if home.is_absolute() and home.is_dir() and os.access(home, os.W_OK):
            return home
    return None


def _base(variable: str, under_home: str) -> Path:
    named = os.environ.get(variable)
    if named and Path(named).is_absolute():
        return Path(named)
    home = _home()
    return home / under_home if home else _temporary() / f"scitq-{os.getuid()}" / under_home


def config_folder() -> Path:
    """`$XDG_CONFIG_HOME/scitq`, else `~/.config/scitq`."""
    return _base("XDG_CONFIG_HOME", ".config") / "scitq"


def data_folder() -> Path:
    """`$XDG_DATA_HOME/scitq`, else `~/.local/share/scitq`."""
    return _base("XDG_DATA_HOME", ".local/share") / "scitq"


def cache_folder() -> Path:
    """`$SCITQ_CACHE`, else `$XDG_CACHE_HOME/scitq`, else `~/.cache/scitq`."""
    named = os.environ.get("SCITQ_CACHE")
    return Path(named) if named else _base("XDG_CACHE_HOME", ".cache") / "scitq"


def runtime_folder() -> Path:
    """A private folder of this user, memory-backed where there is one: `$XDG_RUNTIME_DIR/scitq`, `/run/user/N`, `/dev/shm`, `/tmp`.

    Not made here; who writes makes it with mode 0700 and checks its owner.
    """
    named = os.environ.get("XDG_RUNTIME_DIR")
    candidates = [Path(named)] if named else []
    candidates.append(Path(f"/run/user/{os.getuid()}"))
    for candidate in candidates:
        if candidate.is_dir() and os.access(candidate, os.W_OK) and candidate.stat().st_uid == os.getuid():
            return candidate / "scitq"
    shared = Path("/dev/shm")  # noqa: S108 - a folder of ours, 0700 and checked, is made in it
    base = shared if os.access(shared, os.W_OK) else _temporary()
    return base / f"scitq-{os.getuid()}"
