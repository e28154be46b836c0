"""Each of the fourteen letters, seen in `task list` (contract, section 10)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lib.site import Site, stopped, wait_until
from tests.lib.webserver import Pace, SlowServer


@pytest.fixture
def site(tmp_path: Path, scitq_argv: list[str]) -> Iterator[Site]:
    with Site(tmp_path / "site", scitq_argv) as made:
        yield made
