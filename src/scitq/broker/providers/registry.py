"""From the `providers` section of scitq.yaml to drivers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scitq.broker.providers.base import Provider, ProviderContext
from scitq.broker.providers.fake import FakeProvider
from scitq.broker.providers.local import LocalProvider
from scitq.broker.providers.slurm import SlurmProvider
from scitq.errors import UsageError

Driver = Callable[[str, Mapping[str, Any], ProviderContext], Provider]
KINDS: dict[str, Driver] = {"local": LocalProvider, "slurm": SlurmProvider, "fake": FakeProvider}


def open_providers(section: Mapping[str, Mapping[str, Mapping[str, Any]]], mark: str, folder: Path) -> dict[str, Provider]:
    """Every configured provider by its name `kind.config`; `local.local` is always there. UsageError names what is wrong.

    mark: prefix of this server's machine names; folder: each driver gets its own below it, made when needed.
    """
    opened: dict[str, Provider] = {}
    for kind, configs in {"local": {"local": {}}, **section}.items():
        driver = KINDS.get(kind)
        if driver is None:
            raise UsageError(f"providers.{kind}: no such kind of provider; known are {', '.join(sorted(KINDS))}")
        for config, options in configs.items():
            name = f"{kind}.{config}".lower()
            opened[name] = driver(name, options or {}, _context(name, mark, folder))
    if "local.local" not in opened:
        opened["local.local"] = LocalProvider("local.local", {}, _context("local.local", mark, folder))
    return opened


def _context(name: str, mark: str, folder: Path) -> ProviderContext:
    return ProviderContext(mark=mark, folder=folder / name)
