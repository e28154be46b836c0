"""What this scitq is made of: version, commit, libraries."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import scitq
from scitq.util import proc


@dataclass(frozen=True, slots=True)
class BuildInfo:
    """`libraries`: name and version of each, sorted by name; `commit` is empty when it is not known."""

    version: str
    commit: str
    python: str
    one_file: bool
    libraries: dict[str, str]


def build_info() -> BuildInfo:
    """From the record made at the build of the one file; else from the installed packages and the checkout."""
    try:
        record = importlib.import_module("scitq_build")
    except ModuleNotFoundError:
        return BuildInfo(scitq.__version__, _checkout_commit(), platform.python_version(), False, installed_libraries())
    return BuildInfo(scitq.__version__, record.COMMIT, platform.python_version(), True, dict(record.LIBRARIES))


def installed_libraries() -> dict[str, str]:
    """The run-time dependencies of scitq that are installed, with what they depend on themselves."""
    found: dict[str, str] = {}
    waiting = ["scitq"]
    seen = set(waiting)
    while waiting:
        name = waiting.pop()
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if name != "scitq":
            found[name] = distribution.version
        for line in distribution.requires or []:
            wanted = re.match(r"[A-Za-z0-9._-]+", line)
            if wanted is None or "extra ==" in line:
                continue
            key = re.sub(r"[-_.]+", "-", wanted[0]).lower()
            if key not in seen:
                seen.add(key)
                waiting.append(key)
    return dict(sorted(found.items()))


def _checkout_commit() -> str:
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return ""
    try:
        answer = proc.run(["git", "-C", root, "describe", "--always", "--dirty", "--abbrev=12", "--match", ""], timeout_s=5)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.decode().strip() if answer.returncode == 0 else ""
