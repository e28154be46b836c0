"""From the `providers` section of scitq.yaml to drivers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from scitq.broker.providers.base import Provider, ProviderContext
from scitq.broker.providers.fake import FakeProvider
from scitq.broker.providers.local import LocalProvider
from scitq.broker.providers.slurm import SlurmProvider
from scitq.broker.recruit_state import Quota
from scitq.errors import UsageError

_LIMITS = "limits"
"""The option that every provider may have: most workers, cpus (cpu) and cost an hour (cost), here or by region."""
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
            name = _name(kind, config)
            if name in opened:
                raise UsageError(f"providers.{kind}.{config}: another one is named {name} too; capitals make no difference")
            own = {key: value for key, value in (options or {}).items() if key != _LIMITS}
            opened[name] = driver(name, own, _context(name, mark, folder))
    if "local.local" not in opened:
        opened["local.local"] = LocalProvider("local.local", {}, _context("local.local", mark, folder))
    return opened


def _name(kind: str, config: str) -> str:
    if not re.fullmatch(r"[\w-]+", config, re.ASCII):
        raise UsageError(f"providers.{kind}.{config}: the name of a configuration has letters, digits, _ and - only")
    return f"{kind}.{config}".lower()


def _context(name: str, mark: str, folder: Path) -> ProviderContext:
    return ProviderContext(mark=mark, folder=folder / name)


def limits_of(section: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[Quota]:
    """The quotas in `limits:` of every configured provider: `workers`, `cpu`, `cost`, and the same below a region's name."""
    found: list[Quota] = []
    for kind, configs in section.items():
        for config, options in configs.items():
            name = _name(kind, config)
            limits = (options or {}).get(_LIMITS) or {}
            for key, value in limits.items():
                by_kind = {str(key): value} if not isinstance(value, Mapping) else value
                region = str(key) if isinstance(value, Mapping) else ""
                for each, most in by_kind.items():
                    if each not in QUOTA_KINDS or isinstance(most, bool) or not isinstance(most, int | float) or not most >= 0:
                        raise UsageError(f"providers.{name}.limits: {each}: {most!r}; write workers, cpu or cost with a number, 0 or more")
                    found.append(Quota(provider=name, region=region, kind=str(each), most=float(most)))
    return found


QUOTA_KINDS = ("workers", "cpu", "cost")
