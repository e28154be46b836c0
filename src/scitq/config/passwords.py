"""Passwords hashed by bcrypt, as scitq.yaml and the database hold them."""

from __future__ import annotations

import re

from scitq.errors import UsageError

ROUNDS = 12
_HASH = re.compile(r"\$2[aby]\$\d\d\$[./A-Za-z0-9]{53}", re.ASCII)
_MOST_BYTES = 72
"""bcrypt reads no further; a longer password is refused rather than cut."""


def is_hash(text: str) -> bool:
    """Whether `text` is a bcrypt hash ($2a$, $2b$, $2y$)."""
    return bool(_HASH.fullmatch(text))


def _bytes(password: str) -> bytes:
    data = password.encode("utf-8", "surrogateescape")
    if not data or b"\0" in data:
        raise UsageError("a password must not be empty, nor hold a NUL")
    if len(data) > _MOST_BYTES:
        raise UsageError(f"the password has {len(data)} bytes; bcrypt reads {_MOST_BYTES} at most")
    return data


def hash_password(password: str, rounds: int = ROUNDS) -> str:
    """The bcrypt hash of `password`; slow on purpose (a quarter of a second)."""
    import bcrypt

    return bcrypt.hashpw(_bytes(password), bcrypt.gensalt(rounds)).decode()
