"""The trial of issue 5 in simulated time, and the simulator's own edges."""

import msgspec
import pytest
from tests.lib.trial import flavor, trial

from scitq.broker import recruit_simulation
from scitq.broker.providers.fake import FakeCloud
from scitq.broker.recruit_backoff import after_failure
from scitq.broker.recruit_simulation import SimulatedStep, Simulation
from scitq.broker.recruit_state import RecruiterView
from scitq.errors import ConflictError
from scitq.model.flavor_filter import parse


@pytest.mark.parametrize("seed", ["1", "2"])
def test_ten_thousand_tasks_with_evictions_and_failures_end_near_the_cheapest_cost(seed):
    result = trial(seed)
    assert result.succeeded == 10_000
    assert result.machines_left == 0
    assert result.most_at_once == 200
    assert result.evictions > 0
    assert result.failed_deployments > 0
    assert result.ratio <= 1.15


def test_same_seed_gives_the_same_result():
    assert trial("3", tasks=400, workers=20) == trial("3", tasks=400, workers=20)


def test_a_workload_that_no_flavor_fits_is_refused():
    cloud = FakeCloud(flavors={"small": flavor("small", 2, 0.1)})
    impossible = RecruiterView(id=1, step_id=1, conditions=parse("cpu>=100"))
    with pytest.raises(ConflictError):
        Simulation(cloud, [SimulatedStep(id=1, tasks=1, seconds=1)], [impossible]).run()


def test_a_simulation_that_takes_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(recruit_simulation, "MOST_WORK", 1000)
    cloud = FakeCloud(flavors={"small": flavor("small", 2, 0.1)})
    many = SimulatedStep(id=1, tasks=2000, seconds=60, spread=1)
    with pytest.raises(ConflictError, match="takes too long: "):
        Simulation(cloud, [many], [RecruiterView(id=1, step_id=1, conditions=parse(""))]).run()


def test_a_long_wait_costs_no_work():
    cloud = FakeCloud(flavors={"small": flavor("small", 2, 0.1)}, delay_s=90)
    long = SimulatedStep(id=1, tasks=3, seconds=30 * 86_400)
    run = Simulation(cloud, [long], [RecruiterView(id=1, step_id=1, conditions=parse(""))])
    assert run.run().seconds == pytest.approx(30 * 86_400, abs=400)
    assert run.work < 100


@pytest.mark.parametrize(("seconds", "evictions"), [(60, 1000), (36_000, 1)])
def test_a_workload_whose_machines_are_always_reclaimed_too_soon_is_given_up(seconds, evictions):
    cloud = FakeCloud(flavors={"spot": flavor("spot", 2, 0.1)}, delay_s=90, evict_per_hour=evictions)
    with pytest.raises(ConflictError, match=r"does not end: \d+ of 10 tasks after 10\d\d runs"):
        Simulation(cloud, [SimulatedStep(id=1, tasks=10, seconds=seconds)], [RecruiterView(id=1, step_id=1, conditions=parse(""))]).run()


def test_tasks_that_outlast_every_allocation_are_refused_and_others_take_the_flavors_that_last():
    short = msgspec.structs.replace(flavor("short", 2, 0.1), longest_s=3600.0)
    recruiter = RecruiterView(id=1, step_id=1, conditions=parse(""))
    step = SimulatedStep(id=1, tasks=2, seconds=7200)
    with pytest.raises(ConflictError, match="no flavor that passes the filter can run its pending tasks, which ask for 7200 seconds"):
        Simulation(FakeCloud(flavors={"short": short}), [step], [recruiter]).run()
    cloud = FakeCloud(flavors={"short": short, "long": flavor("long", 2, 0.2)})
    result = Simulation(cloud, [step], [recruiter]).run()
    assert {machine.flavor for machine in cloud.machines.values()} == {"long"}
    assert result.cheapest_cost == pytest.approx(2 * 2 * 0.2)


def test_workers_end_with_their_allocation_and_are_replaced_and_begin_nothing_that_would_not_fit():
    hourly = msgspec.structs.replace(flavor("hourly", 2, 1.0), longest_s=3600.0)
    cloud = FakeCloud(flavors={"hourly": hourly}, delay_s=60)
    recruiter = RecruiterView(id=1, step_id=1, conditions=parse(""), max_workers=1)
    result = Simulation(cloud, [SimulatedStep(id=1, tasks=7, seconds=1500)], [recruiter], idle_timeout_s=3600).run()
    # An hour holds two tasks of 25 minutes; nothing is begun in the ten minutes that are left, and nothing is cut off.
    assert (result.succeeded, result.runs, result.machines_left) == (7, 7, 0)
    assert (result.machines_made, result.most_at_once) == (4, 1)
    lives = sorted(machine.deleted_s - machine.ready_s for machine in cloud.machines.values())
    assert lives[-1] <= 3600
    assert result.seconds >= 3 * 3600 + 1500


def test_a_worker_near_its_end_is_given_shorter_tasks_and_the_longer_ones_get_a_new_one():
    hourly = msgspec.structs.replace(flavor("hourly", 2, 1.0), longest_s=3600.0)
    cloud = FakeCloud(flavors={"hourly": hourly}, delay_s=60)
    steps = [SimulatedStep(id=1, tasks=1, seconds=3000), SimulatedStep(id=2, tasks=1, seconds=3000, follows=1)]
    recruiters = [RecruiterView(id=step.id, step_id=step.id, conditions=parse("")) for step in steps]
    result = Simulation(cloud, steps, recruiters, idle_timeout_s=3600).run()
    assert (result.succeeded, result.runs, result.machines_made) == (2, 2, 2)
    assert result.seconds < 3000 + 3000 + 60 + 600, "the second task waited for the end of the first one's worker"


@pytest.mark.parametrize("rate", [0.5, 0.95])
def test_failing_deployments_delay_and_cost_nothing(rate):
    cloud = FakeCloud(flavors={"a": flavor("a", 2, 0.1)}, fail_rate=rate)
    result = Simulation(cloud, [SimulatedStep(id=1, tasks=4, seconds=60)], [RecruiterView(id=1, step_id=1, conditions=parse(""))]).run()
    assert (result.succeeded, result.machines_left) == (4, 0)
    assert result.failed_deployments > 0


def test_an_unusable_flavor_gives_way_to_the_next_cheapest():
    cloud = FakeCloud(flavors={"a": flavor("a", 2, 0.1), "b": flavor("b", 2, 0.2)}, unusable=["a"])
    result = Simulation(cloud, [SimulatedStep(id=1, tasks=4, seconds=60)], [RecruiterView(id=1, step_id=1, conditions=parse(""))]).run()
    assert result.succeeded == 4
    assert {machine.flavor for machine in cloud.machines.values()} == {"b"}


def test_back_off_grows_and_chance_failures_do_not_set_a_flavor_aside():
    first, second, third = (after_failure("provider", failures, 0) for failures in (1, 2, 3))
    assert first.aside_until_ms is None
    assert first.next_try_ms < second.next_try_ms < third.next_try_ms
    assert third.aside_until_ms is not None
    assert after_failure("quota", 1, 0).aside_until_ms == 60_000
    assert after_failure("provider", 99, 0).next_try_ms == 15 * 60_000
