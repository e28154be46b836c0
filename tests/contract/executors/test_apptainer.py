"""apptainer, against a stand-in on PATH that checks every argument (the real one is in no registry that tests can reach)."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from tests.lib.rig import Rig, keeper

from scitq.agent.executors.apptainer import ApptainerExecutor
from scitq.agent.executors.base import ImageError
from scitq.storage.base import Cancel

pytestmark = pytest.mark.xdist_group("apptainer")

STAND_IN = """#!/usr/bin/env python3
import os, sys
log = open(os.path.join(os.path.dirname(sys.argv[0]), "calls"), "a")
print(*sys.argv[1:], sep="\\t", file=log, flush=True)
verb, *rest = sys.argv[1:]
if verb == "pull":
    target, source = rest
    assert source.startswith("docker://"), source
    if "nosuch" in source:
        sys.exit("FATAL: requested access to the resource is denied")
    if "private" in source:
        assert (os.environ["APPTAINER_DOCKER_USERNAME"], os.environ["APPTAINER_DOCKER_PASSWORD"]) == ("u", "p")
    open(target, "w").write("sif of " + source)
    sys.exit()
assert verb in ("run", "exec"), verb
for flag in ("--containall", "--cleanenv", "--no-home", "--writable-tmpfs"):
    assert rest[0] == flag, rest
    rest.pop(0)
binds = {}
while rest[0].startswith("--"):
    flag = rest.pop(0)
    if flag == "--bind":
        source, place, mode = rest.pop(0).rsplit(":", 2)
        assert os.path.exists(source), source
        binds[place] = (source, mode)
    elif flag == "--net":
        assert rest[:2] == ["--network", "none"], rest
        del rest[:2]
    else:
        assert flag == "--nv", flag
assert [binds[place][1] for place in ("/input", "/output", "/resource", "/tmp")] == ["rw", "rw", "ro", "rw"], binds
image, *words = rest
assert open(image).read().startswith("sif of docker://"), image
words = [binds["/scitq/script"][0] if word == "/scitq/script" else word for word in words]
env = {name[13:]: value for name, value in os.environ.items() if name.startswith("APPTAINERENV_")}
os.execvpe(words[0], words, {"PATH": os.environ["PATH"]} | env)
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    folder = tmp_path_factory.mktemp("apptainer")
    bin_folder = folder / "bin"
    bin_folder.mkdir()
    (bin_folder / "apptainer").write_text(STAND_IN)
    (bin_folder / "apptainer").chmod(0o755)
    before = os.environ["PATH"]
    os.environ["PATH"] = f"{bin_folder}:{before}"
    try:
        with keeper(folder / "work"):
            rig = Rig(folder / "work", lambda rig: ApptainerExecutor(rig.folder, rig.bare, rig))
            rig.executor.prepare("alpine", {}, Cancel())
            yield rig
            for key in list(rig.ends):
                rig.call(lambda key=key: rig.executor.release(key))
            rig.close()
    finally:
        os.environ["PATH"] = before


def calls(rig: Rig) -> list[list[str]]:
    return [line.split("\t") for line in (Path(rig.folder.parent) / "bin/calls").read_text().splitlines()]


def test_an_image_is_pulled_and_converted_once_for_many_tasks(rig):
    threads = [threading.Thread(target=rig.executor.prepare, args=("python:3.12", {}, Cancel())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert [call[2] for call in calls(rig) if call[0] == "pull" and "python" in call[2]] == ["docker://python:3.12"]


def test_a_pull_that_fails_speaks_in_the_registrys_words(rig):
    with pytest.raises(ImageError, match="access to the resource is denied"):
        rig.executor.prepare("nosuch/image", {}, Cancel())
    assert not [file for file in (rig.folder / "images").iterdir() if file.name.startswith(".")]


def test_credentials_go_by_environment(rig):
    rig.executor.prepare("reg:5000/private/a:1", {"reg:5000": {"username": "u", "password": "p"}}, Cancel())
    assert not [call for call in calls(rig) if "p" in call[1:]]


def test_a_task_runs_with_its_variables_and_its_status(rig):
    key = rig.start(1, 'echo "$A"; echo err >&2; exit 4', container="alpine", shell="sh", env={"A": "a,b=c 'd'"})
    assert rig.end(key).status == 4
    assert rig.streams(key) == {1: b"a,b=c 'd'\n", 2: b"err\n"}


def test_a_script_is_mounted(rig):
    key = rig.start(2, "print('from python')", container="alpine", shell="python3")
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"from python\n"


def test_another_entry_point_goes_by_exec(rig):
    key = rig.start(3, "one 'two three'", container="alpine", entrypoint="echo -n")
    assert rig.end(key).status == 0
    assert rig.streams(key)[1] == b"one two three"
    assert calls(rig)[-1][0] == "exec"
