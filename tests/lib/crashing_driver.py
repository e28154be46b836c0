"""A call of a provider's driver that ends with kill -9 in its midst: crashing_driver.py, with what to do as JSON on stdin.

The moments are before and after each thing the driver does that others can see: a process started or run, a file written.
Exit status 0: the call came to its end before the chosen moment.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def main() -> int:
    """Do it as far as it goes."""
    sys.path.pop(0)  # the folder of this file, whose names are also those of modules
    told = json.load(sys.stdin)

    import msgspec

    from scitq.broker.providers.base import MachineRequest
    from scitq.broker.providers.registry import open_providers
    from scitq.util import files, proc

    provider = open_providers(told["section"], told["mark"], Path(told["folder"]))[told["provider"]]
    left = told["moment"]

    def step() -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def around(call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            step()
            result = call(*arguments, **options)
            step()
            return result

        return watched

    modules: list[tuple[Any, str]] = [(proc, "run"), (proc, "start"), (files, "write_atomically"), (files, "remove_tree")]
    for module, name in modules:
        setattr(module, name, around(getattr(module, name)))
    request = msgspec.json.decode(json.dumps(told["request"]), type=MachineRequest)
    if told["call"] == "create":
        provider.create(request)
    else:
        provider.delete(request.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
