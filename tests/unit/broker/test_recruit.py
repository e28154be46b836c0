"""The recruiters' plan: targets, takeovers, the cheapest flavor, quotas, set-asides, releases."""

from scitq.broker.recruit import plan
from scitq.broker.recruit_state import LAST_IDLE_MS, Ask, FleetState, Quota, RecruiterView, StepView, WorkerView
from scitq.model.flavor import Flavor
from scitq.model.flavor_filter import parse

NOW = 1_000_000


def flavor(name, cpus=4, cost=0.1, **fields):
    return Flavor(
        **{"provider": "fake.main", "region": "here", "name": name, "cpus": cpus, "mem_gib": 4 * cpus, "disk_gb": 100, "cost": cost}
        | fields
    )


SMALL, LARGE = flavor("small", 4, 0.1), flavor("large", 32, 0.9)


def recruiter(number=1, step=1, text="", **fields):
    return RecruiterView(**{"id": number, "step_id": step, "conditions": parse(text)} | fields)


def step(number=1, workflow=1, **counts):
    return StepView(id=number, workflow_id=workflow, **counts)


def worker(number, status="ready", step=1, **fields):
    given = {"id": number, "status": status, "concurrency": 1, "step_id": step, "recruiter_id": 1, "flavor": SMALL, "idle_since_ms": NOW}
    return WorkerView(**given | fields)


def state(recruiters, steps, workers=(), flavors=(SMALL, LARGE), **fields):
    return FleetState(
        recruiters=recruiters, steps={each.id: each for each in steps}, workers=list(workers), flavors=list(flavors), **fields
    )


def names(chosen):
    return [deploy.flavor.name for deploy in chosen.deploys]


def test_target_is_open_tasks_over_rounds_and_concurrency_rounded_up():
    for open_tasks, rounds, concurrency, expected in [
        (1, 1, 1, 1),
        (10, 1, 1, 10),
        (10, 1, 4, 3),
        (10, 2, 4, 2),
        (17, 2, 4, 3),
        (16, 2, 4, 2),
    ]:
        chosen = plan(state([recruiter(rounds=rounds, concurrency=concurrency)], [step(pending=open_tasks)]), NOW)
        assert len(chosen.deploys) == expected


def test_target_counts_held_tasks_and_the_workers_that_hold_them():
    held = [worker(number, held=1) for number in range(1, 4)]
    assert len(plan(state([recruiter()], [step(pending=2, held=3)], held), NOW).deploys) == 2


def test_target_is_counted_once_whatever_the_number_of_ranks():
    chosen = plan(state([recruiter(1, rank=1), recruiter(2, rank=2), recruiter(3, rank=3)], [step(pending=5)]), NOW)
    assert [deploy.recruiter_id for deploy in chosen.deploys] == [1] * 5


def test_next_rank_gets_what_the_first_may_not_have():
    chosen = plan(state([recruiter(1, rank=1, max_workers=2), recruiter(2, rank=2)], [step(pending=5)]), NOW)
    assert [deploy.recruiter_id for deploy in chosen.deploys] == [1, 1, 2, 2, 2]


def test_blocked_tasks_never_cause_a_deployment():
    chosen = plan(state([recruiter()], [step(blocked=500)]), NOW)
    assert not chosen.deploys
    assert "500 wait" in chosen.reasons[1][0]


def test_tasks_of_a_paused_step_cause_no_deployment():
    chosen = plan(state([recruiter()], [step(pending=5, is_paused=True)]), NOW)
    assert not chosen.deploys
    assert "step 1 is paused, or its workflow suspended: its 5 pending tasks" in chosen.reasons[1][0]


def test_idle_workers_of_the_workflow_come_before_others_and_those_before_machines():
    workers = [
        worker(1, step=3, scope="G", recruiter_id=9),
        worker(2, step=2, scope="W", recruiter_id=8),
        worker(3, step=3, scope="W", recruiter_id=9),
        worker(4, step=2, scope="N", recruiter_id=8),
        worker(5, step=2, scope="W", recruiter_id=8, is_permanent=True),
    ]
    chosen = plan(state([recruiter()], [step(pending=3), step(2), step(3, workflow=2)], workers), NOW)
    assert [take.worker_id for take in chosen.takes] == [2, 1]
    assert names(chosen) == ["small"]


def test_workers_of_a_step_with_pending_tasks_are_left_there():
    workers = [worker(1, step=2, recruiter_id=2)]
    chosen = plan(state([recruiter(1), recruiter(2, step=2)], [step(pending=1), step(2, pending=1)], workers), NOW)
    assert not chosen.takes


def test_a_worker_that_does_not_pass_the_filter_is_not_taken_over():
    chosen = plan(state([recruiter(text="cpu>=8")], [step(pending=1), step(2)], [worker(1, step=2)]), NOW)
    assert not chosen.takes
    assert names(chosen) == ["large"]


def test_cheapest_flavor_that_passes_is_deployed():
    dear = flavor("dear", 4, 5.0)
    shaky = flavor("shaky", 4, 0.01, eviction_percent=30)
    unpriced = flavor("unpriced", 4, None)
    assert names(plan(state([recruiter()], [step(pending=1)], flavors=[dear, LARGE, shaky, unpriced, SMALL]), NOW)) == ["small"]
    assert names(plan(state([recruiter(text="eviction<50")], [step(pending=1)], flavors=[dear, shaky, SMALL]), NOW)) == ["shaky"]
    assert names(plan(state([recruiter(text="cost<=0.05")], [step(pending=1)], flavors=[dear, SMALL]), NOW)) == []


def test_adaptive_concurrency_takes_the_cheapest_slot_that_will_be_used():
    wide = recruiter(concurrency=None, cpus_per_task=2)
    cheap_slots = flavor("cheap-slots", 32, 0.4)
    chosen = plan(state([wide], [step(pending=16)], flavors=[SMALL, cheap_slots]), NOW)
    assert [(deploy.flavor.name, deploy.concurrency) for deploy in chosen.deploys] == [("cheap-slots", 16)]
    assert names(plan(state([wide], [step(pending=1)], flavors=[SMALL, cheap_slots]), NOW)) == ["small"]


def test_adaptive_concurrency_keeps_its_bounds():
    bounded = recruiter(concurrency=None, cpus_per_task=2, mem_per_task_gib=4, concurrency_min=4, concurrency_max=6, prefetch_percent=50)
    chosen = plan(state([bounded], [step(pending=6)]), NOW)
    assert [(deploy.flavor.name, deploy.concurrency, deploy.prefetch) for deploy in chosen.deploys] == [("large", 6, 3)]


def test_quotas_hold_with_the_machines_that_exist():
    workers = [worker(1, held=1), worker(2, status="deleting", step=None)]
    for quota, expected in [
        (Quota(provider="fake.main", kind="workers", most=3), 1),
        (Quota(provider="fake.main", region="here", kind="cpu", most=16), 2),
        (Quota(provider="fake.main", region="there", kind="cpu", most=0), 9),
        (Quota(provider="fake.main", kind="cost", most=0.35), 1),
    ]:
        chosen = plan(state([recruiter()], [step(pending=9, held=1)], workers, flavors=[SMALL], quotas=[quota]), NOW)
        assert len(chosen.deploys) == expected, quota


def test_over_quota_the_next_provider_is_used():
    other = flavor("other", 4, 0.2, provider="fake.second")
    chosen = plan(state([recruiter()], [step(pending=3)], flavors=[SMALL, other], quotas=[Quota(provider="fake.main", most=1)]), NOW)
    assert names(chosen) == ["small", "other", "other"]


def test_flavor_set_aside_is_not_used_until_its_time():
    aside = state([recruiter()], [step(pending=1)], flavors=[SMALL], set_aside={SMALL.key: NOW + 5})
    chosen = plan(aside, NOW)
    assert not chosen.deploys
    assert "set aside" in chosen.reasons[1][0]
    assert chosen.wake_ms == NOW + 5
    assert names(plan(aside, NOW + 5)) == ["small"]


def test_back_off_delays_and_says_so():
    chosen = plan(state([recruiter(next_try_ms=NOW + 4000)], [step(pending=1)]), NOW)
    assert not chosen.deploys
    assert chosen.wake_ms == NOW + 4000
    assert "4 s" in chosen.reasons[1][0]


def test_timeout_leaves_time_for_idle_workers_and_other_ranks():
    patient = recruiter(timeout_ms=60_000)
    assert not plan(state([patient], [step(pending=1)]), NOW).deploys
    waited = recruiter(timeout_ms=60_000, unmet_since_ms=NOW - 60_000)
    assert len(plan(state([waited], [step(pending=1)]), NOW).deploys) == 1


def test_workflow_maximum_counts_workers_of_all_its_steps():
    workers = [worker(1, step=2, held=1, recruiter_id=2)]
    both = [recruiter(1), recruiter(2, step=2)]
    chosen = plan(state(both, [step(pending=5), step(2, held=1)], workers, workflow_most={1: 3}), NOW)
    assert len(chosen.deploys) == 2
    assert "--maximum-workers" in chosen.reasons[1][-2] + chosen.reasons[1][-1]


def test_taking_over_inside_the_workflow_is_free_of_its_maximum():
    workers = [worker(number, step=2, recruiter_id=2) for number in (1, 2)]
    chosen = plan(state([recruiter(1), recruiter(2, step=2)], [step(pending=5), step(2)], workers, workflow_most={1: 2}), NOW)
    assert len(chosen.takes) == 2
    assert not chosen.deploys


def test_installing_workers_beyond_the_need_are_released_and_needed_ones_kept():
    workers = [worker(1, held=1), *[worker(number, status="installing", created_ms=number) for number in (2, 3, 4)]]
    chosen = plan(state([recruiter()], [step(pending=1, held=1)], workers), NOW)
    assert [release.worker_id for release in chosen.releases] == [3, 4]
    assert not chosen.deploys


def test_workers_with_no_work_left_in_the_workflow_are_released_after_a_moment():
    idle = [worker(1, idle_since_ms=NOW - LAST_IDLE_MS), worker(2, idle_since_ms=NOW - 1000)]
    chosen = plan(state([recruiter()], [step()], idle), NOW)
    assert [release.worker_id for release in chosen.releases] == [1]
    assert chosen.wake_ms == NOW - 1000 + LAST_IDLE_MS
    waiting = plan(state([recruiter()], [step(), step(2, blocked=3)], idle), NOW)
    assert not waiting.releases


def test_permanent_hand_started_and_unrecruited_workers_are_never_released():
    idle = [worker(1, is_permanent=True), worker(2, is_deployed=False), worker(3, recruiter_id=None)]
    assert not plan(state([recruiter()], [step()], idle), NOW + 10 * LAST_IDLE_MS).releases


def test_explains_an_empty_catalogue_and_a_filter_that_nothing_passes():
    assert "no flavor" in plan(state([recruiter()], [step(pending=1)], flavors=[]), NOW).reasons[1][0]
    assert "too small" in plan(state([recruiter(concurrency=None, cpus_per_task=64)], [step(pending=1)]), NOW).reasons[1][0]


def test_no_worker_is_deployed_for_tasks_that_it_could_never_run():
    small = Flavor(provider="p.a", region="r", name="small", cpus=2, mem_gib=4, cost=0.1, longest_s=3600)
    big = Flavor(provider="p.a", region="r", name="big", cpus=16, mem_gib=64, cost=2.0, longest_s=3600)

    def deployed(*asks: Ask) -> list[str]:
        step = StepView(id=1, workflow_id=1, pending=sum(ask.count for ask in asks), asks=asks)
        recruiter = RecruiterView(id=1, step_id=1, conditions=())
        made = plan(FleetState(recruiters=[recruiter], steps={1: step}, workers=[], flavors=[small, big]), 0)
        return [deploy.flavor.name for deploy in made.deploys]

    assert deployed(Ask(count=2)) == ["small", "small"]
    assert deployed(Ask(mem_gib=32, count=1)) == ["big"]
    assert deployed(Ask(mem_gib=640, count=3)) == []
    assert deployed(Ask(time_s=7200, count=1)) == []
    assert deployed(Ask(time_s=7200, count=5), Ask(cpus=1, count=1)) == ["small"]


def test_a_worker_that_ends_too_soon_for_the_pending_tasks_stands_for_what_it_holds_only():
    long, short = Ask(time_s=3600), Ask(time_s=60)
    ending = worker(1, concurrency=4, held=1, seconds_left=600)

    def deployed(ask, *workers):
        return len(plan(state([recruiter(concurrency=4)], [step(pending=3, held=1, asks=(ask,))], workers), NOW).deploys)

    assert deployed(long, ending) == 1
    assert deployed(short, ending) == 0
    assert deployed(long, worker(1, concurrency=4, held=1)) == 0, "one that has not worked yet, or never ends"
    spare = worker(1, concurrency=4, step=2, seconds_left=600)
    assert not plan(state([recruiter()], [step(pending=1, asks=(long,)), step(number=2)], [spare]), NOW).takes
    assert plan(state([recruiter()], [step(pending=1, asks=(short,)), step(number=2)], [spare]), NOW).takes
