"""Which key a server must have: pinned at first use like an ssh host key (contract AUTH-12)."""

from __future__ import annotations

import os
from pathlib import Path

from scitq.client.locate import Address
from scitq.errors import UsageError
from scitq.util import paths

SITE_FILE = Path("/etc/scitq/known_servers")
_Z85 = frozenset("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#")


def user_file() -> Path:
    """The user's own list of servers."""
    return paths.config_folder() / "known_servers"


def is_key(text: str) -> bool:
    """Whether `text` looks like a public key: 40 characters of Z85."""
    return len(text) == 40 and set(text) <= _Z85


def fingerprint(key: str) -> str:
    """A short form of `key` for people to compare."""
    import hashlib

    digest = hashlib.sha256(key.encode()).hexdigest()
    return "SHA256:" + ":".join(digest[i : i + 4] for i in range(0, 32, 4))


def _read(file: Path, address: Address) -> str | None:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError):
        return None
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split(maxsplit=1)
        if len(words) == 2 and not words[0].startswith("#") and words[0] == str(address):
            if not is_key(words[1].strip()):
                raise UsageError(f"{file}, line {number}: the key of {address} is damaged; remove the line or correct it")
            return words[1].strip()
    return None


def find(address: Address) -> tuple[str, str] | None:
    """The key that the server at `address` must have and where that is written; None when it was never met."""
    given = os.environ.get("SCITQ_SERVER_KEY", "").strip()
    if given:
        if not is_key(given):
            raise UsageError("SCITQ_SERVER_KEY is no server key: 40 characters, as `scitq ping` on the server prints them")
        return given, "SCITQ_SERVER_KEY"
    for file in (user_file(), SITE_FILE):
        key = _read(file, address)
        if key:
            return key, str(file)
    return None


def add(address: Address, key: str) -> Path | None:
    """Pin `key`; returns the file, or None when it can't be written (a read-only home)."""
    from scitq.util import files

    file = user_file()
    try:
        files.make_private_folder(file.parent)
        old = file.read_text() if file.exists() else ""
        kept = [line for line in old.splitlines() if line.split(maxsplit=1)[:1] != [str(address)]]
        files.write_atomically(file, "".join(f"{line}\n" for line in [*kept, f"{address} {key}"]).encode(), 0o600)
    except (OSError, UnicodeDecodeError):
        return None
    return file
