"""From `worker_pool` and `task_spec` to recruiters."""

from __future__ import annotations

import re
from collections.abc import Sequence

from scitq.errors import UsageError
from scitq.model import flavor_filter
from scitq.model.template import numbers
from scitq.model.template.plan import PlannedRecruiter, PlannedTask
from scitq.model.template.problems import problem
from scitq.model.template.schema import PoolTemplate, StepTemplate
from scitq.model.template.text import Scope, is_truthy

_SIGNS = {"cpu": ">=", "mem": ">=", "disk": ">=", "gpumem": ">=", "cost": "<=", "eviction": "<="}


def plan(step: StepTemplate, scope: Scope, tasks: Sequence[PlannedTask]) -> list[PlannedRecruiter]:
    """The recruiters of a step, the preferred first; none for a step without tasks."""
    if not tasks:
        return []
    return [_one(step, rank, pool, scope, tasks) for rank, pool in enumerate(step.pools, 1)]


def _one(step: StepTemplate, rank: int, pool: PoolTemplate, scope: Scope, tasks: Sequence[PlannedTask]) -> PlannedRecruiter:
    texts = {**{key: words for key, words in step.task_spec.items() if key in ("concurrency", "prefetch")}, **pool.texts}
    prefetch, prefetch_percent = numbers.percent_or_whole(texts, "prefetch", scope)
    concurrency = numbers.whole(texts, "concurrency", scope, least=1, most=10_000)
    cpus = [task.spec.cpus for task in tasks if task.spec.cpus is not None]
    memory = [task.spec.mem_gib for task in tasks if task.spec.mem_gib is not None]
    disk = [task.spec.disk_gb for task in tasks if task.spec.disk_gb is not None]
    return PlannedRecruiter(
        step=step.name,
        rank=rank,
        filter=_filter(pool, scope),
        concurrency=concurrency,
        cpus_per_task=max(cpus) if cpus and concurrency is None else None,
        mem_per_task_gib=max(memory) if memory and concurrency is None else None,
        disk_per_task_gb=max(disk) if disk and concurrency is None else None,
        prefetch=prefetch,
        prefetch_percent=prefetch_percent,
        rounds=numbers.whole(texts, "rounds", scope, least=1),
        max_workers=numbers.whole(texts, "max", scope, least=1),
        timeout_s=numbers.seconds(texts, "timeout", scope),
    )


def _filter(pool: PoolTemplate, scope: Scope) -> str:
    """A flavor filter with all that the pool asks for (docs of flavors; contract FLV-3 to FLV-6)."""
    pieces: list[str] = []
    provider = numbers.text(pool.texts, "provider", scope)
    if provider is not None:
        name, _, region = provider.partition(":")
        pieces.append(f"provider~{name}")
        if region and "region" not in pool.texts:
            pieces.append(f"region~{region}")
    for key in ("region", "flavor"):
        found = numbers.text(pool.texts, key, scope)
        if found is not None:
            pieces.append(f"{key}~{found}")
    for key, sign in _SIGNS.items():
        piece = numbers.comparison(pool.texts, key, scope, sign)
        if piece is not None:
            pieces.append(piece)
    gpu = numbers.text(pool.texts, "gpu", scope)
    count = re.fullmatch(r"(>=|<=|==|=|>|<)?\s*(\d{1,6})", gpu or "")
    if gpu is not None and gpu.lower() in ("true", "yes"):
        pieces.append("gpus>0")
    elif count is not None and (count[1] or int(count[2])):
        pieces.append(f"gpus{count[1] or '>='}{count[2]}")
    elif gpu is not None and is_truthy(gpu):
        pieces.append(f"gpu~{gpu}")
    own = numbers.text(pool.texts, "filter", scope)
    if own is not None:
        pieces.append(own)
    found = ":".join(pieces)
    try:
        flavor_filter.parse(found)
    except UsageError as error:
        raise problem(pool.line, str(error)) from None
    return found
