"""The only place that starts processes.

The one-file executable runs with a changed environment (its own libraries); what it starts must get the original
back (contract CLI-9): util/bundle restores it at the very start, for children of libraries too.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scitq.util import bundle


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, which is the user's own, with `extra` on top."""
    return dict(os.environ) | dict(extra or {})


def own_command() -> list[str]:
    """The argv that starts this same scitq again: the one file, or `python -m scitq`."""
    return bundle.own_command()


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
