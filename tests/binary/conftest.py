"""The one file under test: `--exe`, else dist/scitq."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.lib.onefile import ROOT, Run


@pytest.fixture(scope="session")
def exe(request: pytest.FixtureRequest) -> Path:
    """The executable."""
    given = request.config.getoption("--exe")
    path = Path(given).resolve() if given else ROOT / "dist" / "scitq"
    if not path.is_file():
        pytest.fail(f"{path} is not there: `make binary` first")
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """An empty home; the cache will be in its .cache/scitq."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


@pytest.fixture
def environment(home: Path, tmp_path: Path) -> dict[str, str]:
    """What a new user has: nothing but HOME, PATH, TMPDIR."""
    (tmp_path / "tmp").mkdir()
    return {"HOME": str(home), "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path / "tmp")}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    """Run a command to its end in the environment of a new user."""

    def run_it(argv: Sequence[str | Path], **changes: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in argv], env=environment | changes, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
        )

    return run_it
