"""Two builds of one commit are the same file (docs/install.md, "Building it")."""

from __future__ import annotations

import json
import os
import random
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lib.onefile import ROOT, Run, contents


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True, text=True, timeout=120).stdout.strip()


def build(commit: str, folder: Path, *, umask: str, **environment: str) -> Path:
    """dist/scitq made of a clone in `folder`, whose files have other times, by somebody with another home, language and hour."""
    git(ROOT, "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(ROOT), str(folder))
    git(folder, "checkout", "--quiet", "--detach", commit)
    for path in (folder / "src").rglob("*"):
        moment_s = random.randrange(1_000_000_000, 1_600_000_000)
        os.utime(path, (moment_s, moment_s))
    home = folder.with_name(folder.name + "-home")
    home.mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    given = kept | {"HOME": str(home), "USER": "somebody", "SCITQ_VENV": sys.prefix} | environment
    script = f"umask {umask}; exec {shlex.quote(str(folder))}/build/binary.sh"
    done = subprocess.run(["sh", "-c", script], env=given, cwd=home, capture_output=True, text=True, timeout=280, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert git(folder, "status", "--porcelain") == "", "the build left something"
    return folder / "dist/scitq"


@pytest.mark.timeout(600)
def test_a_build_elsewhere_gives_the_same_bytes(exe: Path, tmp_path: Path, run: Run) -> None:
    commit = git(ROOT, "rev-parse", "HEAD")
    built_from = json.loads(run([exe, "version", "--verbose", "--json"]).stdout)["commit"]
    if not commit.startswith(built_from):  # made of changed files, or before the last commit
        exe = build(commit, tmp_path / "first", umask="022")
    other = build(commit, tmp_path / "a folder", umask="027", LC_ALL="C", TZ="Asia/Tokyo", PYTHONHASHSEED="7", COLUMNS="40")
    if exe.read_bytes() != other.read_bytes():
        one, two = contents(exe), contents(other)
        differing = sorted(name for name in {*one, *two} if one.get(name) != two.get(name))
        pytest.fail(f"these differ: {', '.join(differing) or 'only the packing'}")
