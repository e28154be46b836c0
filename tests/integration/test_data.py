"""Inputs, resources, outputs and actions through the real command, server and agent (contract, sections 4 to 7); bare tasks, local storage."""

from __future__ import annotations

import gzip
import io
import os
import re
import signal
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.mounts import resize, tmpfs
from tests.lib.site import Site, end, wait_until
from tests.lib.terminal import Terminal
from tests.lib.webserver import WebServer


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("data")
    (folder / "disk").mkdir()
    rclone = {name: {"type": "local", "root": str(folder / root)} for name, root in (("st", "disk"), ("small", "small"))}
    deaf = socket.create_server(("127.0.0.1", 0))
    keys = {"access_key_id": "a", "secret_access_key": "s"}
    rclone["deaf"] = {"type": "s3", "endpoint": f"http://127.0.0.1:{deaf.getsockname()[1]}"} | keys
    with deaf, Site(folder, scitq_argv, rclone=rclone, worker={"min_free_disk": "10M"}) as made:
        made.agent(concurrency=4)
        yield made


def put(site: Site, name: str, data: bytes = b"data") -> None:
    path = site.folder / "disk" / "b" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def stored(site: Site, folder: str) -> dict[str, bytes]:
    root = site.folder / "disk" / "b" / folder
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def tar(*members: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as opened:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            opened.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def create(site: Site, command: str, *more: str) -> int:
    return site.create(command, ["--shell", "sh", *more])


def test_in_01_binary_input_and_output_end_to_end(site):
    put(site, "resource/mybinary", b"#!/bin/sh\ntr a-z A-Z < $2 > $4\n")
    put(site, "resource/reference_data.tgz", tar(("ref/one", b"1"), ("two", b"2")))
    put(site, "data/input1.dat", b"science")
    task = create(
        site,
        "$RESOURCE/mybinary -i $INPUT/input1.dat -o $OUTPUT/output.dat && cat $RESOURCE/ref/one $RESOURCE/two",
        *("--resource", "st://b/resource/mybinary", "--resource", "st://b/resource/reference_data.tgz|untar"),
        *("--input", "st://b/data/input1.dat", "--output", "st://b/results/mybinary-input1"),
    )
    assert site.wait_status(task, "SF") == "S"
    assert stored(site, "results/mybinary-input1") == {"output.dat": b"SCIENCE"}
    assert site.output(task) == "12"
    use = site.show(task)["use"]
    assert use["uploaded_bytes"] == 7
    assert use["downloaded_bytes"] > 30


def test_res_04_the_folders_are_there_and_empty_when_unused(site):
    task = create(
        site, "ls -A $INPUT $OUTPUT $RESOURCE | grep -v : | grep . && exit 1; test -d $INPUT && test -d $OUTPUT && test -d $RESOURCE"
    )
    assert site.wait_status(task, "SF") == "S"


def test_refused_at_creation_before_anything_is_stored(site):
    for flags, said in (
        (["--input", "gs://b/x"], "known are deaf, file, ftp, http, https, small, st"),
        (["--resource", "st://b/x|unzip"], "untar, gunzip and mv:"),
        (["--resource", "st://b/x|mv:../y"], ".."),
        (["--resource", "st://b/x|mv:/y"], "absolute"),
        (["--input", "st://b/x|"], "empty"),
        (["--output", "st://b/o|untar"], "actions"),
        (["--output", "st://b/*/"], "*"),
        (["--output", "st://b/../o"], ".."),
        (["--output", ""], "empty"),
        (["--output", "st://b/o", "--output", "st://b/p"], "twice"),
    ):
        ran = site.fails(["task", "create", "--container", "bare", "--command", "true", *flags], 2)
        assert said in ran.err, ran
        assert ran.out == ""


def test_in_08_what_is_missing_fails_the_task_naming_it(site):
    for uri in ("st://b/absent", "st://b/absent/", "st://b/*.absent"):
        task = create(site, "true", "--input", uri)
        site.wait_status(task, "F")
        assert uri in site.show(task)["row"]["reason"]
        assert uri in site.output(task)


def test_in_10_collisions_are_told_before_running(site):
    put(site, "c1/x", b"1")
    put(site, "c2/x", b"2")
    for flag in ("--input", "--resource"):
        task = create(site, "true", flag, "st://b/c1/x", flag, "st://b/c2/x")
        site.wait_status(task, "F")
        reason = site.show(task)["row"]["reason"]
        assert "st://b/c1/x" in reason
        assert "st://b/c2/x" in reason
        assert "|mv:" in reason


def test_in_02_res_05_inputs_are_private_and_resources_unharmed(site):
    put(site, "p/x", b"original")
    hostile = "chmod -R u+w $RESOURCE; echo hostile > $RESOURCE/x; echo changed > $INPUT/x; cat $INPUT/x"
    for _ in range(2):
        task = create(site, hostile, "--input", "st://b/p/x", "--resource", "st://b/p/x")
        site.wait_status(task, "SF")
        task = create(site, "cat $INPUT/x $RESOURCE/x", "--input", "st://b/p/x", "--resource", "st://b/p/x")
        assert site.wait_status(task, "SF") == "S"
        assert site.output(task) == "originaloriginal"
    assert stored(site, "p") == {"x": b"original"}


def test_res_06_res_09_one_download_for_many_also_after_a_restart_of_the_worker(site):
    put(site, "shared/big", os.urandom(400_000))
    tasks = [create(site, "wc -c < $RESOURCE/big", "--resource", "st://b/shared/big") for _ in range(8)]
    assert [site.wait_status(task, "SF") for task in tasks] == ["S"] * 8
    assert sum(site.show(task)["use"]["downloaded_bytes"] for task in tasks) == 400_000
    end(site.agents[-1], signal.SIGTERM)
    site.agents.pop()
    site.agent(concurrency=4)
    task = create(site, "true", "--resource", "st://b/shared/big")
    assert site.wait_status(task, "SF") == "S"
    assert not site.show(task)["use"].get("downloaded_bytes")


def test_out_03_uploaded_whether_it_succeeds_or_not_and_published_only_on_success(site):
    for code, letter in ((0, "S"), (3, "F")):
        flags = ("--output", f"st://b/out{code}", "--publish", f"st://b/pub{code}")
        task = create(site, f"mkdir -p $OUTPUT/a/.h; echo x > $OUTPUT/a/.h/y; : > $OUTPUT/empty; exit {code}", *flags)
        assert site.wait_status(task, "SF") == letter
        files = {"a/.h/y": b"x\n", "empty": b""}
        assert (stored(site, f"out{code}"), stored(site, f"pub{code}")) == (files, files if code == 0 else {})
    task = create(site, "echo x > $OUTPUT/y; sleep 100", "--output", "st://b/killed")
    site.wait_status(task, "R")
    wait_until(lambda: list((site.folder / "work0" / "tasks").glob(f"{task}-*/output/y")), "the output")
    site.ok(f"task kill --id {task}")
    assert site.wait_status(task, "SF") == "F"
    assert stored(site, "killed") == {"y": b"x\n"}


def test_out_04_a_failed_upload_keeps_the_files_and_can_be_tried_again(site):
    put(site, "blocked/y/in-the-way")
    task = create(site, "echo x > $OUTPUT/y; echo z > $OUTPUT/z", "--output", "st://b/blocked")
    site.wait_status(task, "F")
    assert "upload" in site.show(task)["row"]["reason"]
    assert stored(site, "blocked")["z"] == b"z\n"
    blocked = site.folder / "disk" / "b" / "blocked" / "y"
    (blocked / "in-the-way").unlink()
    blocked.rmdir()
    site.ok(f"task upload --id {task}")
    wait_until(lambda: stored(site, "blocked") == {"y": b"x\n", "z": b"z\n"}, "the second upload")


def test_out_04_a_full_storage_is_the_reason_and_leaves_nothing_half_made(site):
    with tmpfs(site.folder / "small", "6m") as full:
        command = "echo x > $OUTPUT/fits; head -c 9000000 /dev/zero > $OUTPUT/large"
        task = create(site, command, "--output", "small://b/out")
        site.wait_status(task, "F")
        reason = site.show(task)["row"]["reason"]
        assert "upload" in reason
        assert "no room left" in reason
        assert "small://b/out/large" in reason
        assert [path.name for path in full.rglob("*") if path.is_file()] == ["fits"]
        resize(full, "40m")
        site.ok(f"task upload --id {task}")
        wait_until(lambda: sorted(path.name for path in full.rglob("*") if path.is_file()) == ["fits", "large"], "the second upload")
        assert (full / "b/out/large").stat().st_size == 9_000_000
        wait_until(lambda: not list((site.folder / "work0" / "tasks").glob(f"{task}-*/output/*")), "the clean-up")


def test_out_04_files_of_a_failed_or_killed_command_can_be_uploaded_again_too(site):
    for number, ending in enumerate(("exit 3", "sleep 100")):
        put(site, f"bad{number}/y/in-the-way")
        task = create(site, f"echo x > $OUTPUT/y; echo made; {ending}", "--output", f"st://b/bad{number}")
        if ending != "exit 3":
            wait_until(lambda task=task: "made" in site.ok(f"task output --id {task}").out, "the output")
            site.ok(f"task kill --id {task}")
        site.wait_status(task, "F")
        row = site.show(task)["row"]
        assert row["reason"].startswith("upload: ")
        blocked = site.folder / f"disk/b/bad{number}/y"
        (blocked / "in-the-way").unlink()
        blocked.rmdir()
        site.ok(f"task upload --id {task}")
        wait_until(lambda number=number: stored(site, f"bad{number}") == {"y": b"x\n"}, "the second upload")
        assert site.wait_status(task, "SF") == "F"
        wait_until(lambda task=task: site.status_of(task) == "F" and "upload" not in site.show(task)["row"]["reason"], "the first reason")
        row = site.show(task)["row"]
        assert row["reason"] == ("exit status 3" if ending == "exit 3" else "killed by admin")
        site.fails(f"task upload --id {task}", 6)


def test_in_09_a_task_that_is_retried_matches_again(site):
    task = create(site, "cat $INPUT/*", "--input", "st://b/later/*.dat")
    site.wait_status(task, "F")
    put(site, "later/1.dat", b"one")
    site.ok(f"task retry --id {task}")
    task = site.show(task)["row"]["successor_id"]
    assert site.wait_status(task, "SF") == "S"
    assert site.output(task) == "one"


def test_out_08_links_out_are_never_followed_and_are_told_in_the_log(site):
    command = "cd $OUTPUT; echo x > y; ln -s y in; ln -s /etc/hostname out; ln -s nothing dangling; mkfifo pipe"
    task = create(site, command, "--output", "st://b/links")
    assert site.wait_status(task, "SF") == "S"
    assert stored(site, "links") == {"y": b"x\n", "in": b"x\n"}
    log = site.ok(["task", "output", "--id", str(task)])
    for word in ("out is a link to the outside", "dangling", "pipe is a FIFO"):
        assert word in log.out + log.err


def test_skip_if_exists_skips_only_completed_results(site):
    flags = ("--output", "st://b/skip", "--skip-if-exists")
    task = create(site, "echo one > $OUTPUT/r; exit 1", *flags)
    assert site.wait_status(task, "SF") == "F"
    task = create(site, "echo two > $OUTPUT/r", *flags)
    assert site.wait_status(task, "SF") == "S"
    task = create(site, "echo three > $OUTPUT/r", *flags)
    assert site.wait_status(task, "SF") == "S"
    assert stored(site, "skip")["r"] == b"two\n"


def test_gz_01_unt_06_actions_and_damaged_archives(site):
    put(site, "a/x.gz", gzip.compress(b"zipped"))
    put(site, "a/bad.tgz", tar(("x", os.urandom(50_000)))[:-100])
    task = create(site, "cat $INPUT/x", "--input", "st://b/a/x.gz|gunzip")
    assert site.wait_status(task, "SF") == "S"
    assert site.output(task) == "zipped"
    task = create(site, "true", "--resource", "st://b/a/bad.tgz|untar")
    site.wait_status(task, "F")
    assert "corrupt or truncated" in site.show(task)["row"]["reason"]


def test_the_cache_can_be_seen_and_cleared_and_a_uri_checked_from_the_worker(site):
    put(site, "seen/x", b"12345")
    task = create(site, "true", "--resource", "st://b/seen/x")
    site.wait_status(task, "S")
    worker = site.workers()[0]["id"]
    entries = site.ok(f"worker cache list --worker-id {worker} --json").json
    assert next(entry for entry in entries if entry["uri"] == "st://b/seen/x")["bytes"] == 5
    assert site.ok(f"worker cache clear --worker-id {worker} --json").json["entries"] >= 1
    assert site.ok(f"worker cache list --worker-id {worker} --json").json == []
    rows = site.ok(f"file check st://b/seen/ --worker-id {worker} --json").json
    assert [(row["worker_id"], row["is_reachable"], row["files"]) for row in rows] == [(None, True, 1), (worker, True, 1)]
    ran = site.fails(f"file check st://b/nothing --worker-id {worker}", 1)
    assert "nothing" in ran.out
    with WebServer.running() as web:
        web.files["/x"] = b"12"
        rows = site.ok(f"file check http://{web.address}/x --worker-id {worker} --json").json
        assert [(row["worker_id"], row["is_reachable"], row["bytes"]) for row in rows] == [(worker, True, 2)]
        assert "--worker-id" in site.fails(f"file check http://{web.address}/x", 2).err
    ran = site.fails(f"file check file:///etc/hostname --worker-id {worker}", 1)
    assert "not under a folder that scitq.yaml allows" in ran.out


def test_progress_is_shown_by_task_show_and_top(site):
    with WebServer.running() as web:
        web.files["/big"], web.hold_after = bytes(3 << 20), 3 << 19
        task = create(site, "sleep 100", "--input", f"http://{web.address}/big")
        shown = re.compile(r"transferred: +1\.\d MiB of 3\.0 MiB \(3\d%\)")
        wait_until(lambda: shown.search(site.ok(f"task show --id {task}").out), "the progress")
        assert site.show(task)["progress"]["bytes_to_do"] == 3 << 20
        with Terminal([*site.argv, "top"], site.environment | {"TERM": "xterm"}, is_stdout_terminal=True, columns=160) as terminal:
            terminal.expect("MiB/3.0 MiB")
            terminal.type("q")
            assert terminal.end()[0] == 0
        web.go_on.set()
        site.wait_status(task, "R")
    assert site.show(task)["progress"] == {}
    site.ok(f"task kill --id {task}")
    site.wait_status(task, "F")


def test_out_04_progress_of_a_repeated_upload_is_shown(site):
    task = create(site, "head -c 20971520 /dev/zero > $OUTPUT/x", "--output", "deaf://b/out")
    shown = re.compile(r"transferred: +\d[^ ]* [KM]iB of 20\.0 MiB")
    for again in (False, True):
        if again:
            site.ok(f"task upload --id {task}")
        site.wait_status(task, "U")
        wait_until(lambda: shown.search(site.ok(f"task show --id {task}").out), "the progress")
        with Terminal([*site.argv, "top"], site.environment | {"TERM": "xterm"}, is_stdout_terminal=True, columns=160) as terminal:
            terminal.expect("MiB/20.0 MiB")
            terminal.type("q")
            assert terminal.end()[0] == 0
        site.ok(f"task kill --id {task}")
        site.wait_status(task, "F")
        assert site.show(task)["progress"] == {}
    site.ok(f"task delete --id {task}")


def test_an_upload_that_is_killed_says_by_whom_and_keeps_the_files(site):
    task = create(site, "echo x > $OUTPUT/x", "--output", "deaf://b/out")
    for letter in "UF":
        site.wait_status(task, letter)
        if letter == "U":
            site.ok(f"task kill --id {task}")
    assert site.show(task)["row"]["reason"] == "upload: killed by admin before it had ended"
    site.ok(f"task upload --id {task}")
    site.wait_status(task, "U")
    assert [path.read_text() for path in (site.folder / "work0/tasks").glob(f"{task}-*/output/x")] == ["x\n"]
    site.ok(f"task kill --id {task}")
    site.wait_status(task, "F")
    site.ok(f"task delete --id {task}")
    wait_until(lambda: not list((site.folder / "work0/tasks").glob(f"{task}-*")), "the clean-up")


def test_nothing_is_left_of_ended_tasks(site):
    def left() -> list[Path]:
        # A shell's pattern lists what is there, and minds no folder that goes away meanwhile.
        return [path for name in ("input", "output") for path in (site.folder / "work0" / "tasks").glob(f"*/{name}/*")]

    wait_until(lambda: not left(), "the clean-up")
