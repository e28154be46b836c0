"""What the one-file executable needs at run time: its environment undone, its folder kept (docs/install.md).

Imported at every start, before anything else: it imports next to nothing itself.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

_KEPT = "SCITQ_ORIG_"
_REFRESH_S = 43_200.0

_executable: str | None = None
_folder: str | None = None


def settle() -> None:
    """Give this process, and with it all its children, the environment that the user had; called before anything else is imported.

    The dynamic linker read LD_LIBRARY_PATH when it started, so our own libraries are found all the same.
    """
    global _executable, _folder
    environment = os.environ
    for name in ("LD_LIBRARY_PATH", "LD_LIBRARY_PATH_ORIG"):
        environment.pop(name, None)
    for name in [one for one in environment if one.startswith(("_PYI_", "_MEIPASS"))]:
        del environment[name]
    for name in [one for one in environment if one.startswith(_KEPT)]:
        environment[name.removeprefix(_KEPT)] = environment.pop(name)
    _executable = environment.pop("SCITQ_EXECUTABLE", None)
    _folder = environment.pop("SCITQ_BUNDLE", None)
    lock = environment.pop("SCITQ_BUNDLE_LOCK", "")
    if lock.isdigit():
        _keep_from_children(int(lock))
    if _folder is not None:
        _hold(_folder)


def _keep_from_children(descriptor: int) -> None:
    try:
        os.set_inheritable(descriptor, False)
    except OSError:  # started by hand with a left-over variable
        return


def _hold(folder: str) -> None:
    """Lock the folder itself for as long as this process lives: systemd-tmpfiles leaves alone what is locked."""
    import fcntl

    try:
        fcntl.flock(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # a file system without locks
        return


def folder() -> str | None:
    """Where the one file unpacked itself; None when not started from it."""
    return _folder


def own_command() -> list[str]:
    """The argv that starts this same scitq again: the one file, what it unpacked when it is gone, or `python -m scitq`."""
    if _executable is not None and os.access(_executable, os.X_OK):
        return [_executable]
    if _folder is not None:
        loader = next(name for name in os.listdir(_folder) if name.startswith("ld-"))  # noqa: PTH208 - pathlib is not imported here
        return [f"{_folder}/{loader}", "--library-path", f"{_folder}/_internal", f"{_folder}/scitq"]
    return [sys.executable] if getattr(sys, "frozen", False) else [sys.executable, "-m", "scitq"]


def load_all(*packages: str) -> None:
    """Import every module of these packages, so that a daemon does not read its files again when they may have been replaced."""
    import contextlib
    import importlib
    import pkgutil

    for name in packages:
        package = importlib.import_module(name)
        for module in pkgutil.walk_packages(package.__path__, name + "."):
            with contextlib.suppress(ImportError):  # told when it is used
                importlib.import_module(module.name)


def refresh(bundle: Path) -> None:
    """Give every file of the unpacked folder the present time, the lock file first: what is later than it counts as changed."""
    import contextlib

    from scitq.util import clock

    now_ns = clock.now_ms() * 1_000_000
    for path in [bundle / ".lock", *bundle.rglob("*")]:
        with contextlib.suppress(OSError):
            os.utime(path, ns=(now_ns, now_ns), follow_symlinks=False)


def keep_fresh(*packages: str) -> None:
    """In a daemon started from the one file: import all of `packages` now, and keep the unpacked folder young for ever.

    In a thread of its own; to be called when the daemon is ready, and after it has forked what it forks.
    """
    import threading
    from pathlib import Path

    if _folder is None:
        return
    bundle = Path(_folder)

    def tend() -> None:
        load_all(*packages)
        refresh(bundle)
        while not stop.wait(_REFRESH_S):
            refresh(bundle)

    stop = threading.Event()
    threading.Thread(target=tend, name="bundle", daemon=True).start()
