"""`scitq serve` that ends with kill -9 at a chosen step of a deployment or deletion: dying_server.py FOLDER serve …

The steps are transactions, known by a statement of theirs, and calls of the fake provider; each has a moment before and one after it.
A step is armed by writing its name into FOLDER/step; only then anything happens. Nothing of the server itself is changed.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

TRANSACTIONS = {
    "stored": "INSERT INTO machine",
    "made": "UPDATE machine SET provider_id",
    "registered": "UPDATE worker SET uid",
    "unwanted": "UPDATE machine SET is_wanted",
    "deleted": "UPDATE machine SET is_deleted",
}
CALLS = {"asked": ("FakeProvider", "create"), "agent started": ("LocalProvider", "create"), "told to delete": ("FakeProvider", "delete"),
         "agent ended": ("LocalProvider", "delete")}  # fmt: skip


def main() -> int:
    """Watch, and be scitq."""
    sys.path.pop(0)  # the folder of this file, whose names are also those of modules
    armed = Path(sys.argv.pop(1)) / "step"

    def reach(step: str) -> None:
        if armed.is_file() and armed.read_text() == step:
            armed.rename(armed.with_name("reached"))
            os.kill(os.getpid(), signal.SIGKILL)

    import apsw

    def watch(connection: apsw.Connection) -> None:
        seen: set[str] = set()

        def before(_cursor: object, sql: str, _bindings: object) -> bool:
            if sql == "COMMIT":
                for step in seen:
                    reach(f"before {step}")
            elif sql.startswith("BEGIN"):
                seen.clear()
            else:
                seen.update(step for step, words in TRANSACTIONS.items() if sql.startswith(words))
            return True

        def after(sql: str, _nanoseconds: int) -> None:
            if sql == "COMMIT":
                for step in seen:
                    reach(f"after {step}")

        connection.exec_trace = before
        connection.set_profile(after)

    apsw.connection_hooks.append(watch)

    from scitq.broker.providers import fake, local

    for step, (kind, name) in CALLS.items():
        driver: Any = fake.FakeProvider if kind == "FakeProvider" else local.LocalProvider
        setattr(driver, name, _between(step, getattr(driver, name), reach))

    from scitq.__main__ import main as scitq

    return scitq()


def _between(step: str, call: Callable[..., Any], reach: Callable[[str], None]) -> Callable[..., Any]:
    def around(*arguments: Any) -> Any:
        reach(f"before {step}")
        result = call(*arguments)
        reach(f"after {step}")
        return result

    return around


if __name__ == "__main__":
    sys.exit(main())
