"""What a task executes, and with which variables."""

from __future__ import annotations

import pytest

from scitq.agent.command import environment_of, program_of
from scitq.agent.folders import TaskFolders
from scitq.errors import UsageError
from scitq.model.task import TaskSpec
from scitq.protocol.messages.agent import Assignment, Hardware


def program(command: str, shell: str | None = None, container: str = "alpine", entrypoint: str | None = None, tmp="/w/1-1"):
    return program_of(TaskSpec(container=container, command=command, shell=shell, entrypoint=entrypoint), TaskFolders(tmp_path_of(tmp)))


def tmp_path_of(text: str):
    from pathlib import Path

    return Path(text)


def test_cre_05_a_command_is_split_as_a_shell_splits_it():
    assert program("echo \"hello world\" 'a b' c\\ d").words == ["echo", "hello world", "a b", "c d"]


def test_cre_06_nothing_is_interpreted():
    assert program("echo | > && ; $HOME * ~").words == ["echo", "|", ">", "&&", ";", "$HOME", "*", "~"]
    with pytest.raises(UsageError, match="split"):
        program("echo 'open")


@pytest.mark.parametrize("shell", ["sh", "bash", "/bin/zsh", "dash", "bash -euo pipefail"])
def test_cre_09_shells_take_the_command_itself(shell):
    made = program("a | b", shell)
    assert made.words == [*shell.split(), "-c", "a | b"]
    assert made.script is None


@pytest.mark.parametrize("shell", ["python", "python3 -u", "perl", "ruby", "node", "Rscript --vanilla"])
def test_cre_09_other_interpreters_get_a_file(shell):
    made = program("print(1)\r\n\tx", shell)
    assert made.words == [*shell.split(), "/scitq/script"]
    assert made.script == b"print(1)\r\n\tx"
    assert program("print(1)", shell, container="bare").words[-1] == "/w/1-1/script"


def test_cre_10_long_commands_go_by_file():
    made = program("#" * 200 * 1024, "sh")
    assert made.words == ["sh", "/scitq/script"]
    with pytest.raises(UsageError, match="128 KiB"):
        program("echo " + "x" * 200 * 1024)


def test_an_entry_point_is_replaced_only_when_asked():
    assert program("a b").entrypoint is None
    assert program("a b", entrypoint="/bin/tool --flag").entrypoint == ["/bin/tool", "--flag"]


def variables(container: str, **spec):
    asked = Assignment(task_id=7, attempt=1, spec=TaskSpec(container=container, command="x", **spec), array_index=3, item="a b")
    folders = TaskFolders(tmp_path_of("/w/7-1"))
    return environment_of(asked, folders, folders.resource, Hardware(cpus=8, mem_gib=16, disk_gb=1), 4)


def test_cre_14_a_container_gets_its_share_and_nothing_of_the_host(monkeypatch):
    monkeypatch.setenv("SECRET_OF_HOST", "1")
    found = variables("alpine", env={"A": "$B c"})
    assert found == {
        "SCITQ_TASK_ID": "7",
        "CPU": "2",
        "THREADS": "2",
        "MEM": "4",
        "SCITQ_ARRAY_INDEX": "3",
        "SCITQ_ITEM": "a b",
        "A": "$B c",
    }


def test_a_bare_task_is_told_its_folders(monkeypatch):
    monkeypatch.setenv("SECRET_OF_HOST", "1")
    found = variables("bare", cpus=0.5, mem_gib=1.5)
    assert (found["CPU"], found["THREADS"], found["MEM"]) == ("1", "1", "1.5")
    assert (found["INPUT"], found["OUTPUT"]) == ("/w/7-1/input", "/w/7-1/output")
    assert (found["RESOURCE"], found["TEMP"]) == ("/w/7-1/resource", "/w/7-1/tmp")
    assert "PATH" in found
    assert "SECRET_OF_HOST" not in found
