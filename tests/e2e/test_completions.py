"""Completions typed in the real shells."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.lib.services import IN_CI
from tests.lib.site import clean_environment
from tests.lib.terminal import Terminal


def shell(name: str) -> str:
    """The path of a shell; in CI it must be there."""
    found = shutil.which(name)
    if found is None:
        assert not IN_CI, f"{name} is not installed"
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture
def environment(tmp_path: Path, scitq_argv: list[str]) -> dict[str, str]:
    programs = tmp_path / "bin"
    programs.mkdir()
    words = " ".join(f"'{word}'" for word in scitq_argv)
    (programs / "scitq").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
    (programs / "scitq").chmod(0o755)
    made = clean_environment(tmp_path / "home")
    return made | {"PATH": f"{programs}:{os.environ['PATH']}", "TERM": "dumb"}


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("scitq wor", ["worker", "workflow"]),
        ("scitq task ca", ["cancel"]),
        ("scitq task create --conta", ["--container"]),
        ("scitq --json --server a:1 task ca", ["cancel"]),
        ("scitq --server=a:1 --js", ["--json"]),
        ("scitq task create --from-file night", ["nightly.jsonl"]),
        ("scitq task create --on-dependency-failure ", ["cancel", "wait"]),
    ],
)
def test_fish_completes_objects_actions_and_flags(environment: dict[str, str], tmp_path: Path, typed: str, found: list[str]) -> None:
    (tmp_path / "nightly.jsonl").touch()
    line = f"scitq completion fish | source; complete -C '{typed}'"
    done = subprocess.run(
        [shell("fish"), "-c", line], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done
    assert [row.split("\t")[0] for row in done.stdout.splitlines()] == found


def test_zsh_completes_objects_actions_and_flags(environment: dict[str, str], tmp_path: Path) -> None:
    with Terminal([shell("zsh"), "-f", "-i"], environment | {"PS1": "> "}, is_stdout_terminal=True) as terminal:
        terminal.type(
            f"cd {tmp_path}; autoload -U compinit; compinit -u -d {tmp_path}/dump; source <(scitq completion zsh); echo rea''dy\n"
        )
        terminal.expect("ready")
        terminal.type("scitq task canc\t --id 7 --qui\t; echo ty''ped\n")
        terminal.expect("task cancel")
        terminal.expect("--quiet")
        (tmp_path / "nightly.jsonl").touch()
        terminal.type("scitq --server a:1 task creat\t --from-file night\t; echo ty''ped\n")
        terminal.expect("task create")
        terminal.expect("nightly.jsonl")
        terminal.type("\x04exit\n")


def test_bash_completes_objects_actions_and_flags(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "nightly.jsonl").touch()
    with Terminal([shell("bash"), "--norc", "-i"], environment | {"PS1": "> "}, is_stdout_terminal=True) as terminal:
        terminal.type(f"cd {tmp_path}; source <(scitq completion bash); echo rea''dy\n")
        terminal.expect("ready")
        terminal.type("scitq task canc\t --id 7 --qui\t; echo ty''ped\n")
        terminal.expect("task cancel")
        terminal.expect("--quiet")
        terminal.type("scitq --server=a:1 task creat\t --from-file night\t; echo ty''ped\n")
        terminal.expect("task create")
        terminal.expect("nightly.jsonl")
        terminal.type("exit\n")
