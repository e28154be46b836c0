"""Contract CRE (what needs no worker) and issue 3, "Batches", against the real command and server."""

from __future__ import annotations

import json

import pytest
from tests.lib.site import Shell, Site, clean_environment

pytestmark = pytest.mark.xdist_group("cli_create")
CREATE = ["task", "create", "--container", "alpine"]


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("create"), scitq_argv, rclone={"store": {"type": "local", "root": "/nonexistent"}}) as site:
        yield site


@pytest.fixture
def alone(scitq_argv, tmp_path) -> Shell:
    return Shell(scitq_argv, clean_environment(tmp_path) | {"SCITQ_SERVER": "192.0.2.1:5", "SCITQ_TOKEN": "t"})


def test_cre_01_without_a_worker_it_stays_pending(site):
    task = site.create("true")
    assert site.status_of(task) == "P"
    reasons = site.ok(f"task explain --id {task} --json").json[0]["reasons"]
    assert any("worker" in reason for reason in reasons)
    site.ok(f"task cancel --id {task}")


def test_cre_03_container_and_command_are_required(alone):
    for words in (
        ["task", "create"],
        CREATE,
        ["task", "create", "--command", "x"],
        ["task", "create", "--container", " ", "--command", "x"],
        [*CREATE, "--command", "  "],
        [*CREATE, "--command", ""],
    ):
        ran = alone.fails(words, 2)
        assert ran.out == ""
        assert "missing" in ran.err or "empty" in ran.err


def test_cre_06_unbalanced_quotes_are_refused(alone):
    assert "--shell" in alone.fails([*CREATE, "--command", "echo 'a"], 2).err
    assert "split" in alone.fails([*CREATE, "--command", 'echo "'], 2).err


def test_cre_08_the_command_is_stored_byte_for_byte(site):
    for command in ("print('Hello world')\nprint('Python rules!')", "  lead\r\n\ttab é 𝄞 \n", "a\\b \\n %s {} $HOME"):
        task = site.ok([*CREATE, "--hold", "--shell", "python", "--command", command]).id
        assert site.show(task)["spec"]["command"] == command


def test_cre_08_invalid_utf8_is_refused(alone):
    ran = alone.run([*CREATE, "--shell", "sh", "--command", b"echo \xff"])
    assert ran.status == 2
    assert "UTF-8" in ran.err


def test_cre_10_a_command_of_a_megabyte(site, tmp_path):
    script = tmp_path / "long.sh"
    script.write_text("#!/bin/sh\n#SCITQ --container alpine\n" + "# filler é\n" * 100_000 + "echo done\n")
    task = site.ok(["task", "create", "--hold", "--script", str(script)]).id
    spec = site.show(task)["spec"]
    assert spec["command"] == script.read_text()
    assert spec["shell"] == "/bin/sh"


def test_cre_13_image_names(alone):
    for name in ("-v /:/host alpine", "--privileged", "alpine latest", "UPPER", "a//b", "alpine;rm"):
        assert alone.fails(["task", "create", f"--container={name}", "--command", "x"], 2).out == ""


def test_cre_15_ids_grow_and_are_listed_at_once(site):
    ids = [site.ok([*CREATE, "--hold", "--command", "true", *quiet]).id for quiet in ([], ["--quiet"], [])]
    assert ids == sorted(set(ids))
    assert [row["id"] for row in site.tasks("--limit 3")] == ids[::-1]
    site.ok(f"task cancel --id {ids[-1]}")
    site.ok(f"task delete --id {ids[-1]}")
    site.fails(f"task show --id {ids[-1]}", 5)
    assert site.create("true", "--hold") > ids[-1]


def test_cre_15_a_key_gives_the_task_already_made(site):
    words = [*CREATE, "--hold", "--command", "true", "--key", "k1"]
    first = site.ok(words).id
    again = site.ok([*words, "--json"]).json
    assert again["ids"] == again["existing"] == [first]
    ran = site.fails([*CREATE, "--hold", "--command", "false", "--key", "k1"], 6)
    assert ran.out == ""
    assert "k1" in ran.err


def test_cre_16_a_dry_run_creates_nothing(site):
    before = site.tasks("--limit 1")
    ran = site.ok([*CREATE, "--dry-run", "--command", 'echo "hello world" x', "--input", "store://a/b", "--output", "store://out/"])
    for shown in ("echo 'hello world' x", "store://a/b", "store://out/", "/resource", "none"):
        assert shown in ran.out
    planned = site.ok([*CREATE, "--dry-run", "--json", "--shell", "sh", "--command", "a|b", "--array", "1-3"]).json
    assert len(planned) == 3
    assert planned[0]["argv"] == ["sh", "-c", "a|b"]
    assert site.tasks("--limit 1") == before


def test_res_01_an_unknown_scheme_lists_the_known_ones(site):
    ran = site.fails([*CREATE, "--command", "x", "--input", "nope://a/b"], 2)
    assert "nope" in ran.err
    assert "store" in ran.err


def test_out_05_odd_outputs_are_refused(site):
    for uri in ("store://a/*", "store://a/|untar", "store://a/../b", ""):
        site.fails([*CREATE, "--command", "x", "--output", uri], 2)


def test_uri_02_unknown_actions_name_the_three(site):
    ran = site.fails([*CREATE, "--command", "x", "--resource", "store://a/b|unzip"], 2)
    for action in ("untar", "gunzip", "mv"):
        assert action in ran.err


def test_options_reach_the_task(site):
    words = "--hold --name n --label a=b --env K=V --cpus 2 --mem 500MiB --gpus 1 --disk 10 --request licence=2 --time-limit 1h30m"
    words += " --priority 7 --retry 3 --retry-on exit:75,oom --entrypoint /bin/x --shell 'bash -eu'"
    task = site.show(site.create("true", words, container="reg:5000/a/b:tag"))
    row, spec = task["row"], task["spec"]
    assert row["name"] == "n"
    assert row["labels"] == {"a": "b"}
    assert row["priority"] == 7
    assert row["status"] == "Z"
    assert task["retries_left"] == 3
    wanted = {"cpus": 2.0, "gpus": 1, "disk_gb": 10.0, "requests": {"licence": 2}, "time_limit_s": 5400.0, "retry_on": ["exit:75", "oom"]}
    wanted |= {"entrypoint": "/bin/x", "shell": "bash -eu", "env": {"K": "V"}, "container": "reg:5000/a/b:tag"}
    assert {name: spec[name] for name in wanted} == wanted
    assert spec["mem_gib"] == pytest.approx(500 / 1024)


def test_arrays(site):
    made = site.ok([*CREATE, "--hold", "--command", "run {index}", "--name", "n{index}", "--array", "1-9:4%2", "--json"]).json
    rows = site.tasks(f"--array {made['array_id']} --oldest-first --limit 0")
    assert [row["id"] for row in rows] == made["ids"]
    assert [row["array_index"] for row in rows] == [1, 5, 9]
    assert [row["command"] for row in rows] == ["run 1", "run 5", "run 9"]
    assert [row["name"] for row in rows] == ["n1", "n5", "n9"]
    for wrong in ("9-1", "a-b", "1-3:0", "1-3%0", "1,1"):
        assert "array" in site.fails([*CREATE, "--command", "x", "--array", wrong], 2).err


def test_each_line(site):
    made = site.ok([*CREATE, "--hold", "--command", "run '{item}' {index}", "--each-line", "-", "--json"], stdin="a b\n\nc{index}\r\n").json
    shown = [site.show(task) for task in made["ids"]]
    assert [task["item"] for task in shown] == ["a b", "c{index}"]
    assert [task["spec"]["command"] for task in shown] == ["run 'a b' 1", "run 'c{index}' 2"]


def test_scripts_take_flags_from_their_lines(site, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(
        "#!/usr/bin/env bash\n#SCITQ --container alpine --cpus 4\n\n# remark\n#SCITQ --name 'from script' # why\necho hi\n#SCITQ --cpus 99\n"
    )
    task = site.show(site.ok(["task", "create", "--hold", "--script", str(script), "--cpus", "2"]).id)
    assert task["spec"]["command"] == script.read_text()
    assert task["spec"]["shell"] == "bash"
    assert task["spec"]["cpus"] == 2.0
    assert task["row"]["name"] == "from script"
    for wrong in ("--nonsense 3", "--from-file x", "--dry-run", "--script x"):
        script.write_text(f"#SCITQ --container bare {wrong}\necho\n")
        assert wrong.split()[0] in site.fails(["task", "create", "--script", str(script)], 2).err
    script.write_text("#SCITQ --container bare --wait --timeout 0.2s\necho\n")
    site.ok(f"task cancel --id {site.fails(['task', 'create', '--script', str(script)], 124).id}")


def test_tasks_of_a_file(site, tmp_path):
    file = tmp_path / "tasks.jsonl"
    lines = [
        {"command": "one", "name": "a", "label": {"x": "1"}, "cpus": 2, "key": "f1"},
        {"command": "two", "container": "bare", "env": ["A=1"], "input": "store://i/1", "time-limit": "2h", "key": "f2"},
        {"command": "one", "depends_on": [site.create("true", "--hold")], "retry": 2, "key": "f3"},
    ]
    file.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    words = ["task", "create", "--hold", "--container", "alpine", "--from-file", str(file)]
    ids = site.ok(words).ids
    shown = [site.show(task) for task in ids]
    assert [task["spec"]["container"] for task in shown] == ["alpine", "bare", "alpine"]
    assert shown[0]["row"]["labels"] == {"x": "1"}
    assert shown[1]["spec"]["time_limit_s"] == 7200.0
    assert shown[1]["spec"]["inputs"] == ["store://i/1"]
    assert shown[2]["retries_left"] == 2
    assert shown[2]["depends_on"] == lines[2]["depends_on"]
    again = site.ok([*words, "--json"]).json
    assert again["ids"] == again["existing"] == ids
    assert site.ok(["task", "create", "--hold", "--container", "alpine", "--from-file", "-"], stdin=file.read_bytes()).ids == ids


def test_a_file_is_checked_as_a_whole(site):
    before = site.tasks("--limit 1")
    text = '{"command": "ok"}\n{"command": ""}\nnonsense\n{"command": "x", "colour": 1}\n{"command": "x", "cpus": "many"}\n[]\n'
    ran = site.fails([*CREATE, "--from-file", "-"], 2, stdin=text)
    for line in range(2, 7):
        assert f"line {line}" in ran.err
    assert "line 1:" not in ran.err
    assert "colour" in ran.err
    assert ran.out == ""
    assert site.tasks("--limit 1") == before
    assert "no task" in site.fails([*CREATE, "--from-file", "-"], 2, stdin="\n").err
    double = '{"command": "ok"}\n{"command": "a", "command": "b"}\n'
    assert "line 2: command is given twice" in site.fails([*CREATE, "--from-file", "-"], 2, stdin=double).err


def test_an_empty_array_is_refused(alone):
    for flag in ("--array", "--each-line"):
        assert f"{flag} is empty" in alone.fails([*CREATE, "--command", "true", flag, ""], 2).err


def test_a_file_of_thousands(site):
    lines = "".join(f'{{"command": "job {i}", "label": {{"batch": "big"}}}}\n' for i in range(12_000))
    ids = site.ok([*CREATE, "--hold", "--from-file", "-"], stdin=lines).ids
    assert len(ids) == 12_000
    assert ids == sorted(set(ids))
    assert len(site.tasks("--label batch=big --limit 0")) == 12_000
    assert site.tasks(f"--id {ids[7000]}")[0]["command"] == "job 7000"
    site.ok(f"task cancel --id {ids[0]}-{ids[-1]}")


def test_dependencies_hold_tasks_back(site):
    first = site.create("true", "--hold")
    second = site.create("true", "--depends-on last")
    third = site.create("true", f"--dependency {second} --after-any {first}")
    assert site.status_of(second) == "W"
    assert site.show(second)["depends_on"] == [first]
    assert site.show(third)["after_any"] == [first]
    fourth = site.create("true", f"--depends-on {first}-{second},last")
    assert site.show(fourth)["depends_on"] == [first, second, third]
    assert str(first) in site.ok(f"task explain --id {second}").out
    assert len(site.ok(f"task explain --id {second}").out.splitlines()) == 1
    chained = site.create("true", f"--depends-on {first} --on-dependency-failure cancel")
    site.ok(f"task cancel --id {first}")
    assert site.wait_status(chained, "X") == "X"
    assert "it was canceled" in site.ok(f"task explain --id {chained}").out
    assert site.status_of(second) == "W"
    site.fails([*CREATE, "--command", "x", "--depends-on", "99999999"], 5)
    site.ok(f"task cancel --id {second},{third}")


def test_holding_and_letting_go(site):
    task = site.create("true", "--hold")
    assert site.ok(f"task resume --id {task}").out == f"{task} P\n"
    assert site.ok(f"task suspend --id {task}").out == f"{task} Z\n"
    assert site.ok(f"task cancel --id {task} --json").json == [{"id": task, "status": "X"}]
    site.fails(f"task resume --id {task}", 6)


def test_editing(site):
    task = site.create("true", "--hold --name old")
    site.ok(f"task edit --id {task} --name new --priority 3 --label a=b --retry 1")
    shown = site.show(task)
    assert (shown["row"]["name"], shown["row"]["priority"], shown["row"]["labels"], shown["retries_left"]) == ("new", 3, {"a": "b"}, 1)
    assert "nothing to change" in site.fails(f"task edit --id {task}", 2).err


def test_ids_everywhere(site):
    ids = [site.create("true", "--hold") for _ in range(5)]
    first, last = ids[0], ids[-1]
    assert site.ok(f"task list --quiet --id {first}-{last}:2").ids == ids[::2][::-1]
    assert site.ok(f"task show --quiet --id {first},{last}").ids == [first, last]
    assert site.ok("task show --quiet --id last").ids == [last]
    assert len(site.ok(f"task cancel --id {first}-{last} --id {first}").out.splitlines()) == 5
    for wrong in ("x", "3-1", "1-", "-4", "1,,2", "1-3:0"):
        assert site.fails(["task", "show", "--id", wrong], 2).out == ""


def test_waiting_options(site):
    assert "--wait" in site.fails([*CREATE, "--command", "x", "--timeout", "3"], 2).err
    ran = site.fails([*CREATE, "--command", "true", "--wait", "--timeout", "0.3s"], 124)
    assert len(ran.ids) == 1
    site.ok(f"task cancel --id {ran.id}")
