"""What is found of apptainer, and how it is then called; by programs that answer as other versions do (docs/agent.md, "Runtimes")."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from scitq.agent.executors import apptainer_install
from scitq.errors import UnavailableError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with nothing on it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def put(folder: Path, name: str, script: str = "", mode: int = 0o755) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(mode)


def test_a_machine_without_it(machine: Path) -> None:
    with pytest.raises(UnavailableError, match="not installed"):
        apptainer_install.find()


def test_one_that_does_not_answer_is_told_in_its_words(machine: Path) -> None:
    put(machine, "apptainer", "echo no libc >&2; exit 1")
    with pytest.raises(UnavailableError, match="--version: no libc"):
        apptainer_install.find()


def test_an_old_singularity_is_spoken_to_by_its_own_names(machine: Path) -> None:
    put(machine, "singularity", 'test "$1" = --version || exit 1; echo singularity version 3.8.7')
    found = apptainer_install.find()
    assert (found.version, found.prefix) == ("singularity version 3.8.7", "SINGULARITY")
    assert found.environment["SINGULARITY_NO_EVAL"] == "1"
    assert not any(name.startswith("APPTAINER") for name in found.environment)
    assert found.is_setuid is False


def test_apptainer_is_preferred_to_singularity(machine: Path) -> None:
    put(machine, "singularity", "echo singularity version 3.8.7")
    put(machine, "apptainer", 'test "$1" = --version && echo apptainer version 1.4.5 || echo PACKAGE_NAME=apptainer')
    assert apptainer_install.find().version == "apptainer version 1.4.5"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a setuid program")
def test_a_setuid_installation_needs_neither_fuse_nor_namespaces(machine: Path) -> None:
    own = machine / "lib/apptainer/bin"
    own.mkdir(parents=True)
    put(machine, "apptainer", f'test "$1" = --version && echo apptainer version 1.4.5 || echo LIBEXECDIR={machine}/lib')
    assert apptainer_install.find().is_setuid is False
    put(own, "starter-suid", mode=0o4755)
    found = apptainer_install.find()
    assert found.is_setuid
    assert not found.needs_namespace
    assert found.flags == []
    assert list(found.environment) == ["APPTAINER_NO_EVAL"]
    code = "from scitq.agent.executors.apptainer_install import find; print(find().is_setuid, find().flags)"
    words = ["/usr/bin/setpriv", "--no-new-privs", sys.executable, "-c", code]
    environment = {"PATH": str(machine), "PYTHONPATH": os.pathsep.join(sys.path)}
    unable = subprocess.run(words, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert unable.stdout == "False ['--userns']\n"


def test_what_an_installation_brings_along_counts(machine: Path) -> None:
    own = machine / "lib/apptainer/bin"
    own.mkdir(parents=True)
    put(machine, "apptainer", f'test "$1" = --version && echo apptainer version 1.4.5 || echo LIBEXECDIR={machine}/lib')
    put(own, "squashfuse_ll")
    put(own, "mksquashfs")
    found = apptainer_install.find()
    assert found.converts
    assert found.mounts_by_fuse is os.access("/dev/fuse", os.R_OK | os.W_OK)
