"""`python -m tests.bench [section...] [--exe PATH] [--scale F]`."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from tests.bench.sections import SECTIONS


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(prog="bench", description="Measure scitq beside other tools.", allow_abbrev=False)
    parser.add_argument("sections", nargs="*", metavar="section", help=f"of {', '.join(SECTIONS)}; all when none is named")
    parser.add_argument("--exe", type=Path, help="the scitq to measure; by default this python's")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the number of tasks (default 1.0)")
    asked = parser.parse_args()
    if unknown := [name for name in asked.sections if name not in SECTIONS]:
        parser.error(f"unknown section {unknown[0]!r}; known: {', '.join(SECTIONS)}")
    beside = Path(sys.executable).parent / "scitq"
    argv = [str(asked.exe.resolve())] if asked.exe else [str(beside)] if beside.exists() else [sys.executable, "-m", "scitq"]
    bad = 0
    for name in asked.sections or SECTIONS:
        try:
            SECTIONS[name](argv, asked.scale)
        except (AssertionError, OSError, ValueError) as error:
            bad += 1
            print(f"\n({name}: {error})")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
