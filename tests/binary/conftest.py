"""The one file under test: `--exe`, else dist/scitq."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import scitq
from tests.lib.onefile import ROOT, Run

NEWER = "99.0.0"


@pytest.fixture(scope="session")
def exe(request: pytest.FixtureRequest) -> Path:
    """The executable."""
    given = request.config.getoption("--exe")
    path = Path(given).resolve() if given else ROOT / "dist" / "scitq"
    if not path.is_file():
        pytest.fail(f"{path} is not there: `make binary` first")
    return path


@pytest.fixture(scope="session")
def packages(exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the deb and the rpm of this version and of a newer one."""
    assert exe.is_file()
    folder = tmp_path_factory.mktemp("packages")
    for version in (scitq.__version__, NEWER):
        environment = os.environ | {"SCITQ_VENV": sys.prefix, "SCITQ_PACKAGE_DIR": str(folder), "SCITQ_PACKAGE_VERSION": version}
        done = subprocess.run([ROOT / "build/packages.sh", "deb", "rpm"], env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


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
