"""The session file: what makes `SCITQ_TOKEN=$(scitq login)` work without `export` (contract AUTH-7).

The file's name comes from the server and from the terminal's session, so that no other session of the same user
finds it. In a process-id namespace whose session leader is outside, getsid is 0; the namespace's first process
stands for the leader then.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from scitq.client.locate import Address, process_started
from scitq.util import paths

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def _session() -> str | None:
    leader = os.getsid(0) or 1
    started = process_started(leader)
    if started is None:
        return None
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
        boot = BOOT_ID.read_text().strip()
    except OSError:
        return None
    return f"{boot} {namespace} {leader} {started}"


def folder() -> Path:
    """Where session files lie."""
    return paths.runtime_folder() / "sessions"


def file_for(address: Address) -> Path | None:
    """The file of this terminal session for the server at `address`; None when the session has no name."""
    import hashlib

    session = _session()
    if session is None:
        return None
    return folder() / hashlib.sha256(f"{address} {session}".encode()).hexdigest()[:32]


def _is_own(path: Path, is_folder: bool) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    kind = stat.S_ISDIR(found.st_mode) if is_folder else stat.S_ISREG(found.st_mode)
    return kind and found.st_uid == os.getuid() and not found.st_mode & 0o077


def read(address: Address) -> str | None:
    """The token that `scitq login` left for this terminal session."""
    file = file_for(address)
    if file is None or not (_is_own(file.parent.parent, True) and _is_own(file.parent, True) and _is_own(file, False)):
        return None
    try:
        return file.read_text().strip() or None
    except OSError:
        return None


def write(address: Address, token: str) -> bool:
    """Leave `token` for this terminal session; False when there is no safe place for it."""
    from scitq.util import files

    file = file_for(address)
    if file is None:
        return False
    try:
        for place in (file.parent.parent, file.parent):
            files.make_private_folder(place)
            if not _is_own(place, True):
                return False
        files.write_atomically(file, f"{token}\n".encode(), 0o600)
    except OSError:
        return False
    return True


def remove(address: Address) -> None:
    """Forget the token of this terminal session."""
    file = file_for(address)
    if file is not None:
        try:
            file.unlink(missing_ok=True)
        except OSError:
            return
