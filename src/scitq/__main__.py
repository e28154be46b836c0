"""`scitq` and `python -m scitq`."""

from __future__ import annotations

import sys

from scitq.util import interrupts


def main() -> int:
    """Run the command line; the exit status."""
    interrupts.put_off()
    try:
        from scitq.cli.main import main as run

        interrupts.allow()
        status = run()
        interrupts.put_off()
    except KeyboardInterrupt:
        status = 130
    return status


if __name__ == "__main__":
    sys.exit(main())
