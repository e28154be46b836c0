import pytest

from scitq.commands.task_build import Array, elements_of, parse_array, spec_of, task_of
from scitq.commands.task_fields import FIELDS, from_json
from scitq.commands.task_send import MOST_TASKS, batches
from scitq.commands.task_sources import json_lines, script_shell, script_words
from scitq.errors import ConflictError, UsageError

VALUES = {"container": "alpine", "command": "run {index} {item}"}


@pytest.mark.parametrize(
    ("text", "indices", "most"),
    [
        ("1-5", [1, 2, 3, 4, 5], None),
        ("1-10:4", [1, 5, 9], None),
        ("0-3%2", [0, 1, 2, 3], 2),
        ("1-9:4%7", [1, 5, 9], 7),
        ("4,2,9%1", [4, 2, 9], 1),
        ("1-3,7, 10-20:5%2", [1, 2, 3, 7, 10, 15, 20], 2),
    ],
)
def test_arrays(text, indices, most):
    array = parse_array(text)
    assert list(array.indices) == indices
    assert array.most_running == most


@pytest.mark.parametrize(
    "text", ["", "a", "5-1", "1-5:0", "1-5%0", "1-5%", "1-5%2%3", "1,1", "1-3,2", "1,,2", "1,3-2", "1-999999999", "-1-4", "1:2"]
)
def test_what_is_no_array(text):
    with pytest.raises(UsageError, match="array"):
        parse_array(text)


def test_elements_share_a_spec_unless_they_differ():
    shared = list(elements_of(Array(range(3), None), spec_of(VALUES | {"command": "same"}), task_of({"key": "k"})))
    assert len({id(spec) for spec, _ in shared}) == 1
    assert [task.key for _, task in shared] == ["k:0", "k:1", "k:2"]
    own = list(elements_of(Array([1, 2], None, ["a", "{index}"]), spec_of(VALUES), task_of({"name": "n{item}"})))
    assert [spec.command for spec, _ in own] == ["run 1 a", "run 2 {index}"]
    assert [task.name for _, task in own] == ["na", "n{index}"]


def test_item_is_left_alone_without_items():
    ((spec, _),) = elements_of(Array([4], None), spec_of(VALUES), task_of({}))
    assert spec.command == "run 4 {item}"


def test_batches_keep_specs_shared():
    spec, other = spec_of(VALUES), spec_of(VALUES | {"cpus": 2.0})
    pairs = [(spec if i % 2 else other, task_of({})) for i in range(MOST_TASKS + 10)]
    found = list(batches(iter(pairs)))
    assert [len(tasks) for _, tasks in found] == [MOST_TASKS, 10]
    assert all(len(specs) == 2 for specs, _ in found)
    assert [specs[task.spec] for specs, tasks in found for task in tasks] == [spec for spec, _ in pairs]


def test_rich_tasks_go_in_smaller_requests():
    values = VALUES | {"input": [f"a://b/{number}" for number in range(6)], "key": "k"}
    found = list(batches((spec_of(values), task_of({"key": "k", "label": [("a", "b")]})) for _ in range(MOST_TASKS)))
    assert [len(tasks) for _, tasks in found[:2]] == [858, 858]
    assert sum(len(tasks) for _, tasks in found) == MOST_TASKS


def test_large_specs_go_in_several_requests():
    specs = [spec_of({"container": "alpine", "shell": "sh", "command": f"# {i}" + "x" * 1_500_000}) for i in range(7)]
    assert [len(tasks) for _, tasks in batches((spec, task_of({})) for spec in specs)] == [3, 3, 1]


def test_every_field_can_be_said_in_json():
    line = {
        "container": "alpine",
        "command": "x",
        "inputs": ["a://b"],
        "env": {"A": "1"},
        "label": ["x=1"],
        "retry_on": ["exit:3", "oom"],
        "time-limit": 90,
        "mem": "2GiB",
        "skip_if_exists": False,
        "depends_on": [3, "5-7,last"],
        "shell": None,
    }
    found = from_json(line)
    assert found["input"] == ["a://b"]
    assert found["env"] == [("A", "1")]
    assert found["label"] == [("x", "1")]
    assert found["retry_on"] == ["exit:3", "oom"]
    assert found["time_limit"] == 90.0
    assert found["mem"] == 2.0
    assert task_of(found, lambda: 9).depends_on == (3, 5, 6, 7, 9)
    assert "shell" not in found
    assert "skip_if_exists" not in found
    assert len({field.name for field in FIELDS}) == len(FIELDS)


@pytest.mark.parametrize(
    "line",
    [
        [],
        3,
        {"x": 1},
        {"cpus": True},
        {"cpus": "-1"},
        {"hold": "yes"},
        {"command": 3},
        {"input": [["a"]]},
        {"env": {"1A": "x"}},
        {"env": {"A": {}}},
        {"env": {"A": None}},
        {"env": {"A": True}},
        {"retry": 1.5},
        {"retry_on": ""},
        {"retry_on": "oom,"},
        {"depends_on": "key:"},
    ],
)
def test_what_a_line_must_not_say(line):
    with pytest.raises(UsageError):
        from_json(line)


def test_lines_are_told_by_number(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"command":"a"}\n\n{"cpus": 1}\n{"command":"a"}\n')
    with pytest.raises(UsageError, match="line 3"):
        json_lines(str(file), {"container": "alpine"}, lambda: None)
    file.write_text('{"command":"a"}\n\n{"command":"b"}\n{"command":"a"}\n')
    lines = json_lines(str(file), {"container": "alpine"}, lambda: None)
    assert [spec.command for spec in lines.specs] == ["a", "b"]
    assert [task.spec for task in lines.tasks] == [0, 1, 0]
    assert lines.numbers == [1, 3, 4]
    assert lines.place(1) == f"{file}, line 3"


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ('{"command":"a","command":"b"}', "command"),
        ('{"command":"s3://a:b","input":"s3://b","input":"s3://c"}', "input"),
        ('{"command":"a","env":{"A":"1","A":"2"}}', "A"),
        ('{"command":"a","step":1,"step_id":1}', "step_id"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_line(tmp_path, line, key):
    file = tmp_path / "t.jsonl"
    file.write_text('{"command":"a:b"}\n' + line + "\n")
    with pytest.raises(UsageError, match=f"line 2: {key} is given twice"):
        json_lines(str(file), {"container": "alpine"}, lambda: None)


def test_last_in_a_line_is_found_once_it_is_needed(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"command":"a"}\n{"command":"b","depends_on":"last"}\n')
    lines = json_lines(str(file), {"container": "alpine"}, lambda: 4)
    assert [task.depends_on for task in lines.tasks] == [(), (4,)]
    with pytest.raises(UsageError, match="line 2: depends_on: you have no last task"):
        json_lines(str(file), {"container": "alpine"}, lambda: None)


def test_numbers_mean_what_json_means():
    found = from_json({"retry": 2.0, "disk": 1234567.5, "priority": 12e2, "env": {"N": 3, "F": 1234567.25}})
    assert (found["retry"], found["disk"], found["priority"]) == (2, 1234567.5, 1200)
    assert found["env"] == [("N", "3"), ("F", "1234567.25")]


@pytest.mark.parametrize(
    ("text", "word"), [(b"{", "no valid JSON"), (b"null", "not null"), (b'{"command":"a\0"}', "JSON"), (b"\xff\xfe{\0", "JSON")]
)
def test_a_line_that_is_no_task_is_told_as_it_is_written(tmp_path, text, word):
    file = tmp_path / "t.jsonl"
    file.write_bytes(b'{"command":"a"}\r\n' + text + b"\n")
    with pytest.raises(UsageError, match=f"line 2: .*{word}"):
        json_lines(str(file), {"container": "alpine"}, lambda: None)


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_passed_over(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"command":"a"}\r\n\r\n{"command":"b"}\r\n')
    lines = json_lines(str(file), {"container": "alpine"}, lambda: None)
    assert [spec.command for spec in lines.specs] == ["a", "b"]


def test_lines_of_one_key_are_one_task_or_a_conflict(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"command":"a","key":"k"}\n{"command":"b"}\n{"command":"a","key":"k"}\n')
    lines = json_lines(str(file), {"container": "alpine"}, lambda: None)
    assert lines.positions == [0, 1, 0]
    assert [task.key for task in lines.tasks] == ["k", None]
    file.write_text('{"command":"a","key":"k"}\n{"command":"b"}\n{"command":"c","key":"k"}\n')
    with pytest.raises(ConflictError, match="line 3: the key 'k' stands on line 1 too"):
        json_lines(str(file), {"container": "alpine"}, lambda: None)


def test_a_line_waits_for_the_key_of_an_earlier_one(tmp_path):
    file = tmp_path / "t.jsonl"
    file.write_text('{"command":"a","key":"k, 1"}\n{"command":"b","depends_on":["key:k, 1",3],"after_any":"key:other"}\n')
    task = json_lines(str(file), {"container": "alpine"}, lambda: None).tasks[1]
    assert (task.depends_on, task.depends_on_keys, task.after_any_keys) == ((3,), ("k, 1",), ("other",))
    for late in ('{"command":"b","depends_on":"key:k"}\n{"command":"a","key":"k"}\n', '{"command":"a","key":"k","after_any":"key:k"}\n'):
        file.write_text(late)
        with pytest.raises(UsageError, match=r"line 1: .*(line 2|for itself)"):
            json_lines(str(file), {"container": "alpine"}, lambda: None)


def test_an_element_that_is_wrong_is_named():
    with pytest.raises(UsageError, match=r"element 2 .*quote"):
        list(elements_of(Array([1, 2], None, ["a", 'quote"']), spec_of(VALUES), task_of({})))


def test_scripts():
    assert list(script_words("#!/bin/sh\n#SCITQ --cpus 4 # why\n\n#SCITQ --name 'a b'\necho\n#SCITQ --late\n")) == [
        "--cpus",
        "4",
        "--name",
        "a b",
    ]
    for text, shell in (
        ("#!/bin/bash -e\n", "/bin/bash -e"),
        ("#!/usr/bin/env python3\n", "python3"),
        ("#!/usr/bin/env -S bash -e\n", "bash -e"),
        ("x", "sh"),
    ):
        assert script_shell(text) == shell
    with pytest.raises(UsageError, match="line 1"):
        list(script_words("#SCITQ --name 'x\n"))
