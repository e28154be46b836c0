"""The start of a command: the one file beside an installed scitq beside an empty Python, taken in turns."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.site import Site
from tests.bench.tables import middle, ms, show

ONE_FILE = Path(__file__).resolve().parents[2] / "dist" / "scitq"


def timed(argv: Sequence[str], environment: dict[str, str]) -> float:
    begin = time.monotonic()
    # without a timeout, for which subprocess would look only every 50 ms
    subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
    return time.monotonic() - begin


def section(argv: Sequence[str], scale: float) -> None:
    """Warm starts of `--version` and `task list`, the first start, the size."""
    if not ONE_FILE.exists():
        print("\n(no startup of the one file: `make binary` first)")
        return
    installed = [*argv] if Path(argv[0]).resolve() != ONE_FILE else [sys.executable, "-m", "scitq"]
    runs = max(7, int(40 * scale))
    rows = []
    with Site(installed) as site:
        site.scitq("task", "create", "--container", "bare", "--command", "true", "--quiet")
        with tempfile.TemporaryDirectory() as place:
            copy = Path(place) / "scitq"
            shutil.copy(ONE_FILE, copy)
            first = timed([str(copy), "--version"], site.env | {"SCITQ_CACHE": f"{place}/cache"})
        timed([str(ONE_FILE), "--version"], site.env)
        for words in (["--version"], ["task", "list"]):
            ways = {"python": [sys.executable, "-c", "pass"], "installed": [*installed, *words], "file": [str(ONE_FILE), *words]}
            taken: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(runs):
                for name, command in ways.items():
                    taken[name].append(timed(command, site.env))
            ratio = middle(taken["file"]) / middle(taken["installed"])
            name = f"`scitq {' '.join(words)}`"
            rows.append([name, *[f"{ms(middle(found))} ({ms(min(found))})" for found in taken.values()], f"{ratio:.2f}"])
    show(
        f"Start of the one file, warm: median (best) of {runs}",
        ["", "`python -c pass`", "installed", "one file", "ratio of the medians"],
        rows,
        f"First start after copying: {first:.2f} s. Size: {ONE_FILE.stat().st_size / 1e6:.1f} MB.",
    )
