"""A flavor: a kind of machine that a provider offers, with its price."""

from __future__ import annotations

import msgspec


class Flavor(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the catalogue. Memory in GiB, disk in GB, eviction in percent (unknown counts as 0), cost per hour.

    `provider` is `kind.config` in small letters; `cost` None is not known.
    """

    provider: str
    region: str
    name: str
    cpus: float
    mem_gib: float
    disk_gb: float = 0.0
    gpus: int = 0
    gpu: str = ""
    gpumem_gib: float = 0.0
    eviction_percent: float = 0.0
    cost: float | None = None
    longest_s: float | None = None
    """How long a machine may live, in seconds; None: as long as it is wanted."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What names it: provider, region, name."""
        return (self.provider, self.region, self.name)


def by_price(flavor: Flavor) -> tuple[bool, float, float, float, tuple[str, str, str]]:
    """Sort key: the cheapest first, unknown prices last; at one price the larger machine first."""
    return (flavor.cost is None, flavor.cost or 0.0, -flavor.cpus, -flavor.mem_gib, flavor.key)
