"""Contract LST and the parts of HID and RTY that need no worker."""

from __future__ import annotations

import pytest
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.xdist_group("cli_list")


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("list"), scitq_argv) as site:
        text = "".join(f'{{"command": "sleep {i}", "label": {{"n": "{i % 2}"}}, "name": "t{i}"}}\n' for i in range(30))
        site.ids = site.ok("task create --hold --container bare --from-file -", stdin=text).ids
        yield site


def test_lst_01_newest_first_twenty_by_default(site):
    assert site.ok("task list --quiet").ids == site.ids[::-1][:20]


def test_lst_02_limit(site):
    assert site.ok("task list --quiet --limit 3").ids == site.ids[::-1][:3]
    assert site.ok("task list --quiet --limit 0").ids == site.ids[::-1]
    site.fails("task list --limit -1", 2)
    site.fails("task list --limit x", 2)


def test_lst_03_offset_counts_after_the_filters(site):
    wanted = [one for one in site.ids[::-1] if (one - site.ids[0]) % 2]
    pages = [site.ok(f"task list --quiet --label n=1 --limit 4 --offset {start}").ids for start in range(0, 20, 4)]
    assert [one for page in pages for one in page] == wanted
    assert site.ok("task list --quiet --offset 1000").out == ""
    assert site.ok("task list --json --offset 1000").json == []


def test_lst_04_status(site):
    assert site.ok("task list --quiet --status Z --limit 0").ids == site.ids[::-1]
    assert site.ok("task list --quiet --status RF").ids == []
    ran = site.fails("task list --status Q", 2)
    for letter in "WPACDORUVSFZXI":
        assert f"{letter} (" in ran.err


def test_lst_05_06_worker_step_workflow(site):
    assert site.ok("task list --quiet --worker-id 7").out == ""
    assert site.ok("task list --quiet --step-id 7").out == ""
    assert site.ok("task list --quiet --workflow-id 7").out == ""
    assert site.ok("task list --quiet --step-id 0 --limit 0").ids == site.ids[::-1]


def test_lst_07_filters_combine(site):
    assert site.ok("task list --quiet --label n=0 --name t2 --limit 0").ids == [site.ids[i] for i in (28, 26, 24, 22, 20, 2)]
    assert site.ok("task list --quiet --user nobody").out == ""
    assert site.ok("task list --quiet --user admin --since 1h --limit 1").ids == [site.ids[-1]]


def test_since_takes_an_age_or_a_moment(site):
    for text, is_found in (
        ("1h", True),
        ("2001-02-03", True),
        ("2001-02-03T04:05:06", True),
        ("2999-01-01", False),
        ("2999-01-01 10:00", False),
    ):
        assert bool(site.ok(["task", "list", "--quiet", "--limit", "1", "--since", text]).ids) is is_found, text
    for wrong in ("yesterday", "2026-13-01", "0", "-1h"):
        assert "--since" in site.fails(["task", "list", "--since", wrong], 2).err


def test_lst_08_command_contains(site):
    odd = site.ok(["task", "create", "--hold", "--container", "bare", "--shell", "sh", "--command", "ab_c\\d 100% ÉX"]).id
    try:
        for text, is_found in (
            ("b_c", True),
            ("bxc", False),
            ("b_", True),
            ("c\\d", True),
            ("AB_C", True),
            ("ab%ÉX", True),
            ("c%b", False),
            ("a_", False),
        ):
            found = site.ok(["task", "list", "--quiet", "--command", text]).ids
            assert (odd in found) is is_found, text
    finally:
        site.ok(f"task cancel --id {odd}")
        site.ok(f"task delete --id {odd}")


def test_lst_10_every_object_has_a_list(site):
    for words in ("worker list", "user list", "user token list"):
        assert site.ok(words).out.startswith("ID")


def test_lst_11_one_line_each_not_cut_in_a_pipe(site):
    task = site.ok(["task", "create", "--hold", "--container", "bare", "--shell", "sh", "--command", "x" * 5000 + "\nend"]).id
    out = site.ok("task list --limit 1").out
    assert len(out.splitlines()) == 2
    assert "x" * 5000 + "\\nend" in out
    site.ok(f"task cancel --id {task}")
    site.ok(f"task delete --id {task}")


def test_columns(site):
    out = site.ok("task list --limit 1 --columns id,name,user,labels").out.splitlines()
    assert out[0].split() == ["ID", "NAME", "USER", "LABELS"]
    assert out[1].split() == [str(site.ids[-1]), "t29", "admin", "n=1"]
    assert "command" in site.fails("task list --columns nope", 2).err


def test_hid_and_retry_of_what_was_cancelled(site):
    old = site.create("true", "--hold --name kept --label a=b --priority 4")
    site.ok(f"task cancel --id {old}")
    new = site.ok(f"task retry --id {old} --retry 3").id
    assert new > old
    shown = site.show(new)
    assert shown["row"]["predecessor_id"] == old
    assert shown["row"]["status"] == "P"
    assert (shown["row"]["name"], shown["row"]["labels"], shown["row"]["priority"]) == ("kept", {"a": "b"}, 4)
    assert shown["retries_left"] == 3
    assert shown["chain"] == [old, new]
    assert old not in site.ok("task list --quiet --limit 0").ids
    (hidden,) = [row for row in site.tasks("--show-hidden --limit 0") if row["id"] == old]
    assert hidden["successor_id"] == new
    assert hidden["status"] == "X"
    refused = site.fails(f"task retry --id {old}", 6)
    assert str(new) in refused.err
    refused = site.fails(f"task retry --id {new}", 6)
    assert "P" in refused.err or "pending" in refused.err
    site.fails("task retry --id 9999999", 5)
    site.restart_server()
    assert site.show(old)["chain"] == [old, new]
    site.ok(f"task cancel --id {new}")


def test_rty_01_the_new_id_is_printed_one_for_each_task(site):
    old = [site.create("true", "--hold") for _ in range(2)]
    site.ok(f"task cancel --id {old[0]},{old[1]}")
    new = site.ok(f"task retry --id {old[1]},{old[0]}").ids
    assert [site.show(task)["row"]["predecessor_id"] for task in new] == old[::-1]
    (json_id,) = site.ok("task cancel --id last --json").json
    assert site.ok(f"task retry --id {json_id['id']} --json").json[0]["id"] > max(new)
    site.ok(f"task cancel --id {new[0]},last")


def test_rty_06_the_chain_can_be_walked_from_every_attempt_and_survives_a_restart(site):
    chain = [site.create("true", "--hold")]
    for _ in range(3):
        site.ok(f"task cancel --id {chain[-1]}")
        chain.append(site.ok(f"task retry --id {chain[-1]}").id)
    site.restart_server()
    for task in chain:
        assert site.show(task)["chain"] == chain
    shown = [site.show(task)["row"] for task in chain]
    assert [row["successor_id"] for row in shown] == [*chain[1:], None]
    assert [row["predecessor_id"] for row in shown] == [None, *chain[:-1]]
    site.ok(f"task cancel --id {chain[-1]}")


def test_rty_03_two_retries_at_once_make_one_task(site):
    old = site.create("true", "--hold")
    site.ok(f"task cancel --id {old}")
    both = [site.start(f"task retry --id {old}") for _ in range(2)]
    done = [(*process.communicate(timeout=60), process.returncode) for process in both]
    assert sorted(status for _, _, status in done) == [0, 6], done
    site.ok("task cancel --id last")


def test_rty_05_those_that_waited_on_the_old_wait_on_the_new(site):
    old = site.create("true", "--hold")
    waiting = site.create("true", f"--depends-on {old}")
    site.ok(f"task cancel --id {old}")
    new = site.ok(f"task retry --id {old}").id
    assert wait_until(lambda: site.show(waiting)["depends_on"] == [new], "the new dependency")
    site.ok(f"task cancel --id {new},{waiting}")
