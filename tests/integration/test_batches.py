"""Issue 3, "Batches": what a file of many lines promises, against the real command and server."""

from __future__ import annotations

import json
import signal

import pytest
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.xdist_group("batches")
CREATE = ["task", "create", "--container", "bare", "--hold"]
MANY = 12_000


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("batches"), scitq_argv) as site:
        yield site


def _lines(*lines: dict[str, object]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def _count(site: Site) -> int:
    counts: dict[str, int] = site.ok("status --json").json["tasks"]
    return sum(counts.values())


def test_a_key_twice_in_a_file_is_one_task_or_a_conflict(site):
    same = {"command": "true", "key": "twice"}
    ids = site.ok([*CREATE, "--from-file", "-"], stdin=_lines(same, {"command": "true"}, same)).ids
    assert ids[0] == ids[2] != ids[1]
    before = _count(site)
    ran = site.fails([*CREATE, "--from-file", "-"], 6, stdin=_lines({"command": "true"}, same, {"command": "false", "key": "twice"}))
    assert "line 3" in ran.err
    assert "line 2" in ran.err
    assert ran.out == ""
    assert _count(site) == before


def test_a_conflict_names_its_line(site):
    site.ok([*CREATE, "--command", "true", "--key", "taken"])
    ran = site.fails([*CREATE, "--from-file", "-"], 6, stdin=_lines({"command": "true"}, {"command": "false", "key": "taken"}))
    assert "stdin, line 2" in ran.err
    assert "'taken'" in ran.err


@pytest.mark.parametrize(
    ("wrong", "status", "word"),
    [
        ({"command": "false", "key": "held"}, 6, "'held'"),
        ({"command": "true", "step": 99}, 5, "step 99"),
        ({"command": "true", "depends_on": 99999999}, 5, "99999999"),
        ({"command": "true", "depends_on": "key:nix"}, 5, "'nix'"),
        ({"command": "true", "input": "nope://a/b"}, 2, "nope"),
    ],
)
def test_what_the_server_alone_knows_is_checked_before_anything_is_created(site, wrong, status, word):
    site.ok([*CREATE, "--command", "true", "--key", "held"])
    before = _count(site)
    lines = _lines({"command": "true", "key": "a"}, {"command": "true", "depends_on": "key:a"}, *[{"command": "true"}] * 8000, wrong)
    for more in ([], ["--dry-run"]):
        ran = site.fails([*CREATE, *more, "--from-file", "-"], status, stdin=lines)
        assert "stdin, line 8003" in ran.err
        assert word in ran.err
        assert ran.out == ""
    assert _count(site) == before


def test_a_line_waits_for_the_key_of_another_however_far_it_is(site):
    rest = [{"command": f"echo {number}", "key": f"far-{number}", "depends_on": "key:far"} for number in (1, 2)]
    lines = _lines({"command": "true", "key": "far"}, rest[0], *[{"command": "true", "key": f"x{n}"} for n in range(5500)], rest[1])
    ids = site.ok([*CREATE, "--from-file", "-"], stdin=lines).ids
    assert site.show(ids[1])["depends_on"] == site.show(ids[-1])["depends_on"] == [ids[0]]
    assert site.ok([*CREATE, "--from-file", "-"], stdin=lines).ids == ids
    late = _lines({"command": "true", "depends_on": "key:late"}, {"command": "true", "key": "late"})
    assert "line 1: it waits for the key 'late', which stands on line 2" in site.fails([*CREATE, "--from-file", "-"], 2, stdin=late).err


def test_ids_come_from_stdin_as_many_as_there_are(site):
    ids = site.ok([*CREATE, "--command", "true", "--array", "1-5000"]).ids
    lines = "".join(f"{task}\n" for task in ids[::2])
    assert site.ok("task list --quiet --limit 0 --id -", stdin=lines).ids == ids[::2][::-1]
    assert len(site.ok("task cancel --id -", stdin=lines).out.splitlines()) == 2500
    assert site.fails("task wait --id - --json", 10, stdin=lines).json["counts"] == {"X": 2500}
    site.fails("task wait --id - --timeout 0", 124, stdin="".join(f"{task}\r\n" for task in ids))
    assert "no id" in site.fails("task show --id -", 2, stdin="").err
    assert "no selection" in site.fails("task show --id -", 2, stdin="7 x\n").err
    site.fails("task show --id -", 5, stdin=f"{ids[0]}\n{ids[-1] + 999999}\n")


def test_elements_of_an_array_wait_for_those_of_another(site):
    first = site.ok([*CREATE, "--command", "true", "--array", "1-3", "--key", "prep"]).ids
    second = site.ok([*CREATE, "--command", "true", "--array", "1-3", "--depends-on", "key:prep:{index}"]).ids
    assert [site.show(task)["depends_on"] for task in second] == [[task] for task in first]


def test_cut_off_in_the_middle_and_sent_again_nothing_is_made_twice(site, tmp_path):
    file = tmp_path / "many.jsonl"
    file.write_text(_lines(*({"command": f"echo {number}", "key": f"cut-{number}"} for number in range(MANY))))
    words = [*CREATE, "--from-file", str(file)]
    before = _count(site)
    process = site.start(words)
    wait_until(lambda: _count(site) > before or process.poll() is not None, "the first piece")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode in {130, 0}, (out, err)  # 0: it was quicker than the signal
    assert b"Traceback" not in err
    if process.returncode and 0 < _count(site) - before < MANY:
        # Nothing is said when the signal came before the first answer, though the server may have carried that request out.
        assert err == b"" or f"of {MANY} tasks were created before this" in err.decode()
    ids = site.ok(words).ids
    assert len(set(ids)) == MANY
    assert _count(site) == before + MANY
    assert site.ok(words).ids == ids


def test_the_line_of_a_wrong_value_within_an_environment_is_told(site):
    ran = site.fails([*CREATE, "--from-file", "-"], 2, stdin='{"command":"true","env":{"A":{"B":1}}}\nnull\n')
    assert 'line 1: env: A must be a text or a number, not {"B":1}' in ran.err
    assert "line 2: a task is a JSON object, not null" in ran.err


@pytest.mark.parametrize("flag", ["--from-file", "--script"])
def test_an_empty_name_of_a_file_is_refused(site, flag):
    assert f"{flag} is empty" in site.fails(["task", "create", flag, ""], 2).err
