"""The only place that starts processes.

The one-file executable runs with a changed environment (its own libraries); what it starts must get the original
back (contract CLI-9). The launcher keeps the originals in `SCITQ_ORIG_<NAME>`; PyInstaller in `<NAME>_ORIG`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_CHANGED = ("LD_LIBRARY_PATH", "LD_PRELOAD", "PYTHONHOME", "PYTHONPATH")


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment as it was before the executable changed it, with `extra` on top."""
    environment = dict(os.environ)
    if getattr(sys, "frozen", False):
        for name in _CHANGED:
            for kept in (f"SCITQ_ORIG_{name}", f"{name}_ORIG"):
                if kept in environment:
                    environment[name] = environment.pop(kept)
                    break
            else:
                environment.pop(name, None)
        for name in [n for n in environment if n.startswith(("_PYI_", "_MEIPASS", "SCITQ_ORIG_"))]:
            del environment[name]
        if environment.get("LD_LIBRARY_PATH") == "":
            del environment["LD_LIBRARY_PATH"]
    return environment | dict(extra or {})


def own_command() -> list[str]:
    """The argv that starts this same scitq again: the one file, or `python -m scitq`."""
    if getattr(sys, "frozen", False):
        return [os.environ.get("SCITQ_EXECUTABLE", sys.executable)]
    return [sys.executable, "-m", "scitq"]


def start(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's own options
    """Start a child with a clean environment; `env` is added to it. No shell is involved."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen([str(word) for word in argv], env=clean_environment(env), **options)


def start_exactly(argv: Sequence[str], env: Mapping[str, str], **options: Any) -> subprocess.Popen[bytes]:  # noqa: ANN401 - Popen's own options
    """Start a child whose whole environment is `env`; for tasks."""
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.Popen(list(argv), env=dict(env), **options)


def run(
    argv: Sequence[str | Path], *, timeout_s: float, env: Mapping[str, str] | None = None, data: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run a child to its end with `data` as its input; raises TimeoutExpired and FileNotFoundError, never for a bad status."""
    return subprocess.run(
        [str(word) for word in argv], input=data or b"", capture_output=True, timeout=timeout_s, check=False, env=clean_environment(env)
    )
