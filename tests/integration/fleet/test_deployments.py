"""Deployments, deletions, catalogue and quotas, by real commands against a real server with fake clouds (contract 13, 14)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.xdist_group("fleet-deployments")

FLAVORS: dict[str, Any] = {
    "small": {"cpus": 2, "mem": 7.5, "disk": 50, "cost": 0.05},
    "medium": {"cpus": 8, "mem": 32, "disk": 100, "cost": 0.18, "gpu": "NVIDIA Tesla T4", "gpumem": 16, "gpus": 1},
    "shaky": {"cpus": 8, "mem": 32, "disk": 100, "cost": 0.02, "eviction": 20},
    "closed": {"cpus": 1, "mem": 1, "cost": 1},
}
PROVIDERS: dict[str, Any] = {
    "fake": {
        "main": {"flavors": FLAVORS, "region": "swedencentral", "unusable": ["closed"]},
        "flaky": {"flavors": {"only": {"cpus": 2, "cost": 3}}, "fail_rate": 1},
        "tight": {"flavors": {"only": {"cpus": 2, "cost": 2}}, "limits": {"workers": 2}},
    }
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("fleet")
    with Site(folder, scitq_argv, sections={"providers": PROVIDERS}, worker={"janitor_period": "1s"}) as site:
        wait_until(lambda: len(site.ok("flavor list --limit 0 --filter 'eviction<=100' --json").json) == 7, "the catalogue")
        yield site


def cloud(site: Site, name: str = "fake.main") -> dict[str, Any]:
    file = site.data / "providers" / name / "cloud.json"
    return json.loads(file.read_text()) if file.is_file() else {}


def alive(site: Site, name: str = "fake.main") -> list[str]:
    return sorted(machine for machine, facts in cloud(site, name).items() if facts["deleted_s"] is None and facts["evicted_s"] is None)


def worker(site: Site, worker_id: int) -> dict[str, Any]:
    rows = site.ok(f"worker list --worker-id {worker_id} --json").json
    return dict(rows[0])


def settle(site: Site) -> None:
    """Delete all workers and wait until nothing is left."""
    ids = [row["id"] for row in site.workers()]
    if ids:
        site.ok(["worker", "delete", *[word for each in ids for word in ("--worker-id", str(each))]])
    wait_until(lambda: not site.workers() and not alive(site) and not alive(site, "fake.tight"), "nothing is left")


def names(site: Site, text: str, more: str = "") -> list[str]:
    return [row["name"] for row in site.ok(["flavor", "list", "--json", "--filter", text, *more.split()]).json]


def test_flv_01_and_09_cheapest_first_with_all_columns(site: Site) -> None:
    rows = site.ok("flavor list --json").json
    assert len(rows) <= 10
    costs = [row["cost"] for row in rows]
    assert costs == sorted(costs)
    small = next(row for row in rows if row["name"] == "small")
    expected = {
        "provider": "fake.main",
        "region": "swedencentral",
        "cpu": 2,
        "mem": 7.5,
        "disk": 50,
        "eviction": 0,
        "cost": 0.05,
        "gpu": "",
    }
    assert {key: small[key] for key in expected} == expected
    assert [row["name"] for row in site.ok("flavor list --limit 1 --json").json] == [rows[0]["name"]]
    heading = site.ok("flavor list").out.splitlines()[0].split()
    assert heading[:10] == ["PROVIDER", "REGION", "NAME", "CPU", "MEM", "DISK", "GPU", "GPUMEM", "EVICTION", "COST"]


def test_flv_02_list_is_the_only_action(site: Site) -> None:
    site.fails("flavor create", 2)


def test_flv_03_to_06_filters(site: Site) -> None:
    assert names(site, "provider~%fake.main%:cpu>=8") == ["medium"]
    assert names(site, "cpu >= 8 : eviction < 50 : provider ~ fake.main") == ["shaky", "medium"]
    assert names(site, "gpu~%tesla%") == ["medium"]
    assert names(site, "region~%SWED%:mem<=7.5:mem>=7.50") == ["small"]
    assert names(site, "flavor~sm_ll") == []


def test_flv_07_a_bad_filter_is_a_usage_error_that_names_the_piece(site: Site) -> None:
    assert "'colour>3'" in site.fails(["flavor", "list", "--filter", "cpu>1:colour>3"], 2).err
    site.fails(["flavor", "list", "--filter", "%';DROP TABLE task;--"], 2)
    assert names(site, "flavor~%';DROP TABLE task;--") == []
    site.ok("task list")


def test_dep_01_provider_and_flavor_are_required(site: Site) -> None:
    assert "--flavor" in site.fails("worker deploy --provider fake.main", 2).err
    assert "--provider" in site.fails("worker deploy --flavor small", 2).err


def test_dep_02_dep_03_dep_06_unknown_names_are_answered_with_known_ones_and_nothing_is_made(site: Site) -> None:
    before = cloud(site)
    assert "fake.main" in site.fails("worker deploy --provider azure.primary --flavor small", 5).err
    assert "small" in site.fails("worker deploy --provider fake.main --flavor smal", 5).err
    assert "swedencentral" in site.fails("worker deploy --provider fake.main --flavor small --region nowhere", 5).err
    site.fails("worker deploy --provider fake.main --flavor small --step 999", 5)
    site.fails("worker deploy --provider fake.main --flavor small --count 0", 2)
    site.fails("worker deploy --provider fake.main --flavor small --concurrency 0", 2)
    assert cloud(site) == before


def test_dep_04_05_07_and_10_an_id_for_each_worker_and_the_defaults(site: Site) -> None:
    one = site.ok("worker deploy --provider fake.main --flavor small").id
    two = site.ok("worker deploy --provider FAKE.main --flavor small --count 2 --concurrency 4 --prefetch 2 --region SwedenCentral").ids
    assert len(two) == 2
    row = worker(site, one)
    assert (row["status"], row["concurrency"], row["prefetch"]) == ("installing", 1, 0)
    assert (row["provider"], row["region"], row["flavor"]) == ("fake.main", "swedencentral", "small")
    assert [worker(site, each)["concurrency"] for each in two] == [4, 4]
    wait_until(lambda: len(alive(site)) == 3, "three machines")
    settle(site)


def test_dep_dry_run_shows_and_makes_nothing(site: Site) -> None:
    before = cloud(site)
    assert "small" in site.ok("worker deploy --provider fake.main --flavor small --dry-run").out
    here = site.ok("worker deploy --provider local.local --flavor local --count 3 --dry-run").out
    assert " agent --server " in here
    assert "--flavor local" in here
    assert next(site.data.glob("worker.token")).read_text() not in here
    assert not list((site.data / "providers" / "local.local").glob("scitq-*"))
    site.fails("worker deploy --provider local.local --flavor small --dry-run", 5)
    assert cloud(site) == before
    assert site.workers() == []


def test_dep_10_failure_is_told_in_the_providers_own_words_and_leaves_no_machine(site: Site) -> None:
    number = site.ok("worker deploy --provider fake.main --flavor closed").id
    wait_until(lambda: worker(site, number)["status"] == "failed", "the failure")
    assert "is not offered" in worker(site, number)["reason"]
    jobs = site.ok(f"job list --worker-id {number} --status failed --json").json
    assert [(job["kind"], "is not offered" in job["error"]) for job in jobs] == [("create", True)]
    site.ok(f"job retry --job-id {jobs[0]['id']}")
    wait_until(lambda: len(site.ok(f"job list --worker-id {number} --status failed --json").json) == 1, "the second failure")
    site.fails(f"job retry --job-id {jobs[0]['id']}", 6)
    settle(site)


def test_dep_10_quotas_hold(site: Site) -> None:
    ids = site.ok("worker deploy --provider fake.tight --flavor only --count 2").ids
    assert "quota" in site.fails("worker deploy --provider fake.tight --flavor only", 6).err
    used = {(row["provider"], row["kind"]): (row["most"], row["used"]) for row in site.ok("provider quota --json").json}
    assert used["fake.tight", "workers"] == (2, 2)
    site.ok("provider quota --provider fake.tight --most 3")
    ids += site.ok("worker deploy --provider fake.tight --flavor only").ids
    site.ok("provider quota --provider fake.tight --most none")
    site.fails("worker deploy --provider fake.tight --flavor only", 6)
    settle(site)


def test_del_01_and_03_delete_orders_the_provider_and_can_be_repeated(site: Site) -> None:
    number = site.ok("worker deploy --provider fake.main --flavor small").id
    wait_until(lambda: alive(site), "the machine")
    site.ok(f"worker delete --worker-id {number}")
    again = site.run(f"worker delete --worker-id {number}")
    assert again.status in {0, 5}
    wait_until(lambda: not alive(site) and not site.workers(), "its end")
    assert worker(site, number)["status"] == "deleted"


def test_a_provider_that_is_away_is_waited_for(site: Site) -> None:
    number = site.ok("worker deploy --provider fake.main --flavor small").id
    wait_until(lambda: alive(site), "the machine")
    broken = site.data / "providers" / "fake.main" / "broken"
    broken.write_text("the cloud is closed")
    try:
        assert "the cloud is closed" in site.fails("provider check --provider fake.main", 1).err
        site.ok(f"worker delete --worker-id {number}")
        jobs = wait_until(
            lambda: [job for job in site.ok("job list --status queued --json").json if "closed" in job["error"]], "the failing delete"
        )
        assert worker(site, number)["status"] == "deleting"
    finally:
        broken.unlink()
    site.run(f"job retry --job-id {jobs[0]['id']}")
    settle(site)


def test_jobs_are_tried_again_or_given_up_and_nothing_is_left_either_way(site: Site) -> None:
    broken = site.data / "providers" / "fake.main" / "broken"

    def job(kind: str, status: str) -> dict[str, Any]:
        found = wait_until(
            lambda: [row for row in site.ok("job list --limit 2 --json").json if (row["kind"], row["status"]) == (kind, status)],
            f"a job {kind} that is {status}",
        )
        return dict(found[0])

    broken.write_text("the API is on fire")
    try:
        number = site.ok("worker deploy --provider fake.main --flavor small").id
        failed = job("create", "failed")
        assert "the API is on fire" in failed["error"]
        wait_until(lambda: worker(site, number)["status"] == "failed", "the failure")
    finally:
        broken.unlink()
    site.shell("mallory").fails(f"job retry --id {failed['id']}", 7)
    site.ok(f"job retry --id {failed['id']}")
    wait_until(lambda: alive(site) == [worker(site, number)["machine"]], "the machine")
    broken.write_text("on fire again")
    try:
        site.ok(f"worker delete --worker-id {number}")
        queued = job("delete", "queued")
        wait_until(lambda: site.run(f"job delete --id {queued['id']}").status == 0, "a moment between two tries")
        assert worker(site, number)["status"] == "deleted"
        site.fails(f"job delete --id {queued['id']}", 6)
    finally:
        broken.unlink()
    wait_until(lambda: not alive(site), "the janitor's look")
    settle(site)


def test_an_unwanted_machine_of_ours_is_found_and_deleted(site: Site) -> None:
    number = site.ok("worker deploy --provider fake.main --flavor small").id
    (name,) = wait_until(lambda: alive(site), "the machine")
    site.ok(f"worker delete --worker-id {number}")
    wait_until(lambda: not alive(site), "its end")
    kept = site.ok("worker deploy --provider fake.main --flavor small").id
    (stays,) = wait_until(lambda: alive(site), "the machine that stays")
    file = site.data / "providers" / "fake.main" / "cloud.json"
    machines = json.loads(file.read_text())
    lost = name.rsplit("-", 1)[0] + "-9999"
    machines[lost] = machines[name] | {"deleted_s": None}
    file.write_text(json.dumps(machines))
    wait_until(lambda: alive(site) == [stays], "the janitor")
    assert lost in cloud(site)
    assert worker(site, kept)["status"] == "installing"
    settle(site)


def test_an_evicted_machine_is_noticed(site: Site) -> None:
    number = site.ok("worker deploy --provider fake.main --flavor small").id
    (name,) = wait_until(lambda: alive(site), "the machine")
    (site.data / "providers" / "fake.main" / f"evict-{name}").touch()
    wait_until(lambda: worker(site, number)["status"] == "deleted", "the eviction")
    assert "evicted" in worker(site, number)["reason"]
    settle(site)


def test_flavors_can_be_kept_from_use(site: Site) -> None:
    site.ok("provider flavor-disable --provider fake.main --flavor small")
    assert "disabled" in site.fails("worker deploy --provider fake.main --flavor small", 6).err
    site.ok("provider flavor-enable --provider fake.main --flavor small")
    site.fails("provider flavor-disable --provider fake.main --flavor none", 5)


def test_provider_list_and_update(site: Site) -> None:
    rows = {row["name"]: row for row in site.ok("provider list --json").json}
    assert set(rows) == {"fake.main", "fake.flaky", "fake.tight", "local.local"}
    assert rows["fake.main"]["flavors"] == 4
    assert "4 flavors" in site.ok("provider update --provider fake.main").out
    site.fails("provider update --provider nobody.none", 5)
    site.fails("provider quota --provider nobody.none", 5)
    made = site.ok("provider quota --provider fake.tight --kind cpu --most 7 --json").json
    assert [(row["provider"], row["kind"], row["most"]) for row in made] == [("fake.tight", "cpu", 7)]
    assert site.ok("provider quota --provider fake.tight --kind cpu --most none --json").json == []
    assert "scitq.yaml limits it to 2" in site.ok("provider quota --provider fake.tight --most none").err


def test_an_update_that_fails_stands_in_provider_list_at_once(site: Site) -> None:
    def row() -> dict[str, Any]:
        return next(row for row in site.ok("provider list --json").json if row["name"] == "fake.main")

    broken = site.data / "providers" / "fake.main" / "broken"
    broken.write_text("prices are out")
    try:
        assert "prices are out" in site.fails("provider update --provider fake.main", 1).err
        assert "prices are out" in row()["error"]
        assert row()["flavors"] == 4, "what it offered last stays"
    finally:
        broken.unlink()
    site.ok("provider update --provider fake.main")
    assert row()["error"] == ""


def test_only_the_owner_or_an_admin_deletes_and_only_an_admin_sets_limits(site: Site) -> None:
    number = site.ok("worker deploy --provider fake.main --flavor small").id
    other = site.shell("mallory")
    other.fails(f"worker delete --worker-id {number}", 7)
    other.fails(f"worker update --worker-id {number} --concurrency 9", 7)
    other.fails("provider quota --provider fake.main --most 0", 7)
    other.fails("provider flavor-disable --provider fake.main --flavor small", 7)
    own = other.ok("worker deploy --provider fake.main --flavor small").id
    other.ok(f"worker delete --worker-id {own}")
    settle(site)


def test_simulate_prints_time_cost_and_the_cheapest(site: Site) -> None:
    words = "recruiter simulate --step 200x5m --step +200x60s --cpus-per-task 2 --filter provider~fake.main --max-workers 10 --json"
    found = site.ok(words).json
    assert found["cheapest_cost"] <= found["cost"] <= 1.5 * found["cheapest_cost"]
    assert site.ok(words).json == found
    site.fails("recruiter simulate --step 5x1m --filter cpu>1000", 6)
    limited = site.ok("recruiter simulate --step 10x5m --filter provider~fake.tight --json").json
    assert limited["most_at_once"] == 2, "the provider's limit"
    assert "reclaimed too soon" in site.fails("recruiter simulate --step 5x1h --filter provider~fake.main --evictions-per-hour 50", 6).err
    site.fails("recruiter simulate --step five", 2)
