"""What a task asks of a worker, and whether a worker can give it."""

from __future__ import annotations

from typing import NamedTuple

from scitq.model.task import BARE, TaskSpec
from scitq.util.units import counted, figure


class Needs(NamedTuple):
    """A task's demands; hashable, so that tasks that ask for the same share one queue. Zero asks for nothing."""

    is_bare: bool = False
    cpus: float = 0.0
    mem_gib: float = 0.0
    gpus: int = 0
    disk_gb: float = 0.0
    time_s: float = 0.0
    requests: tuple[tuple[str, int], ...] = ()
    array_id: int = 0
    """The array, when it limits how many run at once; else 0."""


_PLAIN = (Needs(), Needs(is_bare=True))


def of_spec(spec: TaskSpec, array_id: int = 0) -> Needs:
    """The demands of a task."""
    if spec.cpus is spec.mem_gib is spec.gpus is spec.disk_gb is spec.time_request_s is None and not spec.requests:
        plain = _PLAIN[spec.container == BARE]
        return plain._replace(array_id=array_id) if array_id else plain
    return Needs(
        spec.container == BARE,
        spec.cpus or 0.0,
        spec.mem_gib or 0.0,
        spec.gpus or 0,
        spec.disk_gb or 0.0,
        spec.time_request_s or 0.0,
        tuple(sorted(spec.requests.items())),
        array_id,
    )


class Capacity(NamedTuple):
    """What a worker has, or has left."""

    cpus: float
    mem_gib: float
    gpus: int
    disk_gb: float
    requests: dict[str, int]

    def misses(self, needs: Needs) -> str:
        """What is too little for `needs`, in words; empty when all fits."""
        if needs.cpus > self.cpus + 1e-9:
            return f"{figure(needs.cpus)} cpus (has {figure(self.cpus)})"
        if needs.mem_gib > self.mem_gib + 1e-9:
            return f"{figure(needs.mem_gib)} GiB of memory (has {figure(self.mem_gib)})"
        if needs.gpus > self.gpus:
            return f"{counted(needs.gpus, 'GPU')} (has {self.gpus})"
        if needs.disk_gb > self.disk_gb + 1e-9:
            return f"{figure(needs.disk_gb)} GB of disk (has {figure(self.disk_gb)})"
        for name, count in needs.requests:
            if count > self.requests.get(name, 0):
                return f"{count} of {name} (has {self.requests.get(name, 0)})"
        return ""

    def less(self, needs: Needs, sign: int = 1) -> Capacity:
        """What is left when `needs` is taken (sign 1) or given back (sign -1)."""
        requests = self.requests
        if needs.requests:
            requests = dict(requests)
            for name, count in needs.requests:
                requests[name] = requests.get(name, 0) - sign * count
        return Capacity(
            self.cpus - sign * needs.cpus,
            self.mem_gib - sign * needs.mem_gib,
            self.gpus - sign * needs.gpus,
            self.disk_gb - sign * needs.disk_gb,
            requests,
        )
