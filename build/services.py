#!/usr/bin/env python3
"""Start and stop the real services that tests use: all on loopback, on free ports, without anything from outside but packages.

    services.py up [docker s3 azurite gcs webdav registry slurm apptainer]   all of them when none is named
    services.py down [names]                                         exactly what `up` started, and nothing else
    services.py status
    services.py running                                              the names of what `up` left running here

Addresses and test credentials are written to .cache/services.json, logs to out/services/<name>/. What runs already (the
Docker engine) is used and left alone. With CI=true, or when asked for by name, a service that does not start is a failure.
"""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

from service import apptainer, engine, slurm, stores
from service.common import (
    CACHE,
    IN_CI,
    STARTED,
    STATE,
    Processes,
    ServiceError,
    alive,
    end,
    read_state,
    say,
    write_state,
)

Starter = Callable[[], tuple[dict[str, Any], Processes]]
SERVICES: dict[str, Starter] = {
    "docker": engine.docker,
    "registry": engine.registry,
    "s3": stores.s3,
    "azurite": stores.azurite,
    "gcs": stores.gcs,
    "webdav": stores.webdav,
    "slurm": slurm.slurm,
    "apptainer": apptainer.apptainer,
}
# Of what has no process of ours: whether it still answers.
CHECKS: dict[str, Callable[[dict[str, Any]], bool]] = {"docker": lambda _: engine.answers(), "apptainer": apptainer.is_there}
CLEANERS: dict[str, Callable[[], None]] = {
    "registry": engine.clean_registry,
    "s3": lambda: stores.clean("s3"),
    "azurite": lambda: stores.clean("azurite"),
    "webdav": lambda: stores.clean("webdav"),
    "slurm": slurm.clean,
}


def up(names: Sequence[str]) -> int:
    """Start what is not running; the state file is written after each, so that `down` finds all even after a failure."""
    bad = 0
    state = read_state()
    for name in names:
        known = state.get(name)
        if known and alive(known.get("processes", [])) and (name not in CHECKS or CHECKS[name](known)):
            say(f"{name}: already up")
            continue
        if known:
            end(known.get("processes", []))
        begin = time.monotonic()
        STARTED.clear()
        try:
            facts, processes = SERVICES[name]()
        except ServiceError as failure:
            bad += 1
            state.pop(name, None)
            state.setdefault("unavailable", {})[name] = str(failure)
            write_state(state)
            end(STARTED)
            say(f"{name}: cannot be had: {failure}")
            continue
        state[name] = facts | {"processes": processes.started}
        state.get("unavailable", {}).pop(name, None)
        write_state(state)
        say(f"{name}: up after {time.monotonic() - begin:.1f} s")
    return 1 if bad else 0


def down(names: Sequence[str]) -> int:
    state = read_state()
    for name in reversed(names):
        known = state.pop(name, None)
        if known is None:
            continue
        mine = known.get("processes", [])
        end(mine)
        if mine and name in CLEANERS:
            CLEANERS[name]()
        say(f"{name}: stopped" if mine else f"{name}: not ours, left alone")
        write_state(state)
    if not set(state) - {"unavailable"}:
        STATE.unlink(missing_ok=True)
    return 0


def status() -> int:
    state = read_state()
    for name in SERVICES:
        known = state.get(name)
        if known is None:
            print(f"{name:10} {state.get('unavailable', {}).get(name, 'down').splitlines()[0]}")
        else:
            facts = " ".join(f"{key}={value}" for key, value in known.items() if key not in {"processes", "secret_key", "key", "password"})
            print(f"{name:10} {'up' if alive(known.get('processes', [])) else 'dead'}   {facts}")
    return 0


def main() -> int:
    # A shell that starts this in the background ignores SIGINT; the services must not inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("action", choices=["up", "down", "status", "running"])
    parser.add_argument("names", nargs="*", metavar="service", help=", ".join(SERVICES))
    asked = parser.parse_args()
    if unknown := [name for name in asked.names if name not in SERVICES]:
        parser.error(f"unknown service {unknown[0]!r}; known: {', '.join(SERVICES)}")
    if asked.action == "status":
        return status()
    if asked.action == "running":
        print(*(name for name, known in read_state().items() if name in SERVICES and alive(known["processes"])))
        return 0
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "services.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = asked.names or list(SERVICES)
        if asked.action == "down":
            return down(names)
        result = up(names)
    if result and not asked.names and not IN_CI:
        say("tests that need what is missing will be skipped")
        return 0
    return result


if __name__ == "__main__":
    sys.exit(main())
