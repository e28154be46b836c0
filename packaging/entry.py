"""Where the one file begins, with SIGINT blocked by the launcher (packaging/launcher.c)."""

from scitq.util import bundle

bundle.settle()

import sys  # noqa: E402 - what the environment decides is imported after it is restored

from scitq.__main__ import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
