"""The trial of issue 5: 10,000 tasks over three steps, 200 workers, evictions and failed deployments, in simulated time."""

from scitq.broker.providers.fake import FakeCloud
from scitq.broker.recruit_simulation import SimulatedStep, Simulation, Trial
from scitq.broker.recruit_state import RecruiterView
from scitq.model.flavor import Flavor
from scitq.model.flavor_filter import parse


def flavor(name: str, cpus: float, cost: float) -> Flavor:
    return Flavor(provider="fake.main", region="nowhere", name=name, cpus=cpus, mem_gib=4 * cpus, disk_gb=100, cost=cost)


def trial(seed: str = "1", *, tasks: int = 10_000, workers: int = 200) -> Trial:
    """Tasks of five to eight minutes, machines that need 90 s to come, one creation in ten failing, 5% evictions an hour."""
    cloud = FakeCloud(
        flavors={each.name: each for each in (flavor("small", 4, 0.11), flavor("medium", 8, 0.2), flavor("large", 32, 0.9))},
        delay_s=90,
        fail_rate=0.1,
        evict_per_hour=0.05,
        seed=seed,
    )
    share = tasks // 4
    steps = [
        SimulatedStep(id=1, tasks=share, seconds=480, spread=0.3),
        SimulatedStep(id=2, tasks=share, seconds=300, spread=0.3, follows=1),
        SimulatedStep(id=3, tasks=tasks - 2 * share, seconds=360, spread=0.3),
    ]
    recruiters = [
        RecruiterView(
            id=step.id, step_id=step.id, conditions=parse("cpu>=4"), concurrency=None, cpus_per_task=2, max_workers=workers, rounds=3
        )
        for step in steps
    ]
    return Simulation(cloud, steps, recruiters, most_workers=workers).run()
