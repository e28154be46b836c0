"""Contract SRV-1 and issue 6's `serve --detach`, `status`, `stop`: starting servers and agents by the command line."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
from pathlib import Path

import pytest
from tests.lib.site import PASSWORD, Shell, Site, clean_environment, end, wait_until

pytestmark = pytest.mark.xdist_group("cli_serve")


@pytest.fixture
def fresh(scitq_argv, tmp_path) -> Shell:
    """A fresh user without any configuration."""
    return Shell(scitq_argv, clean_environment(tmp_path / "home"))


def kept(shell: Shell, name: str) -> Path:
    return Path(shell.environment["HOME"]) / ".local/share/scitq" / name


def test_srv_01_a_private_default_a_server_in_the_background_and_an_agent_that_finds_it(fresh):
    started = fresh.ok("serve --detach --port 0")
    pid = int(started.out)
    agent = None
    try:
        assert "made a private one" in started.err
        assert str(kept(fresh, "admin-password")) in started.err
        for name in ("scitq.yaml", "admin-password"):
            assert stat.S_IMODE(kept(fresh, name).stat().st_mode) == 0o600
        words = ["login", "--user", "admin", "--password-file", str(kept(fresh, "admin-password"))]
        token = fresh.ok(words).out.strip()
        fresh.environment["SCITQ_TOKEN"] = token
        assert kept(fresh, "admin-password").read_text().strip() not in started.err
        status = fresh.ok("status --json").json
        assert status["pid"] == pid
        assert status["data_folder"] == str(kept(fresh, "server"))
        assert "running since" in fresh.ok("status").out
        agent = fresh.start("agent --concurrency 2", start_new_session=True)
        wait_until(lambda: [row for row in fresh.ok("worker list --json").json if row["status"] == "ready"], "the worker")
        task = fresh.ok(["task", "create", "--container", "bare", "--command", "echo found", "--wait"]).id
        assert fresh.ok(f"task output --id {task}").out == "found\n"
        assert not (Path(fresh.environment["HOME"]) / ".config/scitq/known_servers").exists()
        fresh.ok("stop")
        assert not Path(f"/proc/{pid}").exists() or Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"
        fresh.fails("ping --server 127.0.0.1:1", 4)
        again = fresh.ok("serve --detach --port 0")
        pid = int(again.out)
        assert "made a private one" not in again.err
        assert fresh.ok(f"task list --quiet --id {task}").ids == [task]
        fresh.ok("stop")
    finally:
        if agent is not None:
            end(agent)
            agent.communicate()
        if Path(f"/proc/{pid}/cmdline").exists() and b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)


def test_srv_01_config_init(fresh, tmp_path):
    config = tmp_path / "etc/scitq.yaml"
    made = fresh.ok(["config", "init", "--config", str(config), "--data-dir", str(tmp_path / "data"), "--port", "0"])
    password = made.out.strip()
    assert len(password) >= 16
    assert password not in config.read_text()
    assert stat.S_IMODE(config.stat().st_mode) == 0o600
    assert config.read_text().count("#") > 10
    fresh.fails(["config", "init", "--config", str(config)], 6)
    other = tmp_path / "other.yaml"
    silent = fresh.ok(["config", "init", "--config", str(other), "--admin-password-stdin"], stdin="given\n")
    assert silent.out == ""
    with Site(tmp_path / "site", fresh.argv, is_started=False) as site:
        site.config = config
        site.environment["HOME"] = str(tmp_path / "home2")
        site.start_server()
        assert site.token_of("admin", password)


def test_srv_01_the_order_of_configurations(fresh, tmp_path):
    home = Path(fresh.environment["HOME"]) / ".config/scitq"
    home.mkdir(parents=True)
    files = {"flag": tmp_path / "flag.yaml", "variable": tmp_path / "variable.yaml", "home": home / "scitq.yaml"}
    for name, file in files.items():
        file.write_text(f"scitq:\n  unknown_{name}: 1\n")
        file.chmod(0o600)
    assert "unknown_flag" in fresh.fails(["serve", "--config", str(files["flag"])], 2, env={"SCITQ_CONFIG": str(files["variable"])}).err
    assert "unknown_variable" in fresh.fails("serve", 2, env={"SCITQ_CONFIG": str(files["variable"])}).err
    ran = fresh.fails("serve", 2)
    assert "unknown_home" in ran.err
    assert f"{files['home']}, line 2" in ran.err
    assert "absent" in fresh.fails("serve --config /absent.yaml", 2).err


def test_srv_01_what_cannot_be_is_told_without_a_traceback(fresh, tmp_path):
    assert "65534" in fresh.fails("serve --port 70000", 2).err
    config = tmp_path / "scitq.yaml"
    config.write_text("scitq:\n  port: 0\n  data_dir: /proc/nowhere\n")
    config.chmod(0o600)
    ran = fresh.fails(["serve", "--config", str(config)], 1)
    assert "/proc/nowhere: " in ran.err
    assert "internal" not in ran.err


def test_srv_01_variables_and_open_modes(fresh, tmp_path):
    config = tmp_path / "scitq.yaml"
    config.write_text("scitq:\n  port: 0\n  token_secret: ${NOT_SET_HERE}\n")
    config.chmod(0o644)
    ran = fresh.fails(["serve", "--config", str(config)], 2)
    assert "NOT_SET_HERE" in ran.err
    assert "line 3" in ran.err
    assert "chmod 600" in ran.err


def test_several_servers_on_one_host(tmp_path, scitq_argv):
    with Site(tmp_path / "one", scitq_argv) as one, Site(tmp_path / "two", scitq_argv) as two:
        assert one.port != two.port
        task = one.create("true", "--hold")
        assert task in [row["id"] for row in one.tasks()]
        assert two.tasks() == []
        alone = Shell(
            scitq_argv, {name: value for name, value in two.environment.items() if name not in {"SCITQ_SERVER", "SCITQ_SERVER_KEY"}}
        )
        assert alone.ok("ping --json").json["server"] == f"127.0.0.1:{two.port}"


def test_srv_05_a_second_server_on_the_same_data_is_refused(tmp_path, scitq_argv):
    with Site(tmp_path, scitq_argv) as site:
        ran = site.run(["serve", "--config", str(site.config), "--port", "0"])
        assert ran.status != 0
        assert str(site.data) in ran.err
        assert site.ok("ping").status == 0
        ran = site.run(["serve", "--config", str(site.config), "--detach"])
        assert ran.status == 1
        assert "did not start" in ran.err


def test_the_server_ends_well(tmp_path, scitq_argv):
    with Site(tmp_path, scitq_argv) as site:
        word = next((site.home / "run/scitq/servers").glob("*.json"))
        assert stat.S_IMODE(word.stat().st_mode) == 0o600
        assert json.loads(word.read_text())["port"] == site.port
        server = site.server
        assert server is not None
        for _ in range(2):
            server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
        assert not word.exists()
        assert "Traceback" not in site.server_log
        assert PASSWORD not in site.server_log
        site.start_server()
        site.agent()
        task = site.create("sleep 1")
        site.wait_status(task, "R")
        site.ok("stop --drain")
        assert site.server is not None
        assert site.server.wait(60) == 0
        site.start_server()
        assert site.wait_status(task, "SF") == "S"
        other = site.shell("hugo", "pw")
        other.fails("stop", 7)
        site.fails(["serve", "--server", "x:1"], 2)


def test_a_server_that_hangs_is_named_by_its_process(tmp_path, scitq_argv):
    with Site(tmp_path, scitq_argv) as site:
        server = site.server
        assert server is not None
        server.send_signal(signal.SIGSTOP)
        try:
            assert f"kill -9 {server.pid}" in site.fails("stop", 4).err
        finally:
            server.send_signal(signal.SIGCONT)
        site.agent()
        task = site.create("sleep 600")
        site.wait_status(task, "R")
        assert "draining" not in site.ok("status").out
        site.ok("stop --drain")
        assert "draining" in site.ok("status").out
        site.ok("stop")
        assert server.wait(60) == 0


def test_a_server_in_the_background_without_a_runtime_folder_says_how_it_is_reached(fresh, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "scitq").write_text("in the way")
    fresh.environment["XDG_RUNTIME_DIR"] = str(folder)
    started = fresh.ok("serve --detach --port 0")
    try:
        address = started.err.rpartition("--server ")[2].split()[0]
        assert fresh.ok(f"ping --server {address} --json").json["server"] == address
    finally:
        os.kill(int(started.out), signal.SIGTERM)


def test_ctrl_c_while_a_server_starts_in_the_background_leaves_none(fresh):
    starting = fresh.start("serve --detach --port 0", start_new_session=True)
    children = Path(f"/proc/{starting.pid}/task/{starting.pid}/children")
    server = int(wait_until(lambda: children.read_text().split(), "the start of the server")[0])
    cmdline = Path(f"/proc/{server}/cmdline")
    wait_until(lambda: b"--detach" not in cmdline.read_bytes(), "its own program")  # until then the one who starts it waits
    os.kill(server, signal.SIGSTOP)  # before it is ready
    starting.send_signal(signal.SIGINT)
    assert starting.wait(60) == 130
    starting.communicate()
    os.kill(server, signal.SIGCONT)
    wait_until(lambda: not cmdline.exists() or not cmdline.read_bytes(), "the end of the server")


def test_a_backup_is_a_whole_database(tmp_path, scitq_argv):
    with Site(tmp_path, scitq_argv) as site:
        task = site.create("true", "--hold")
        made = site.ok(["db", "backup", "--to", str(tmp_path / "copy.db"), "--json"]).json
        assert made["path"] == str(tmp_path / "copy.db")
        with sqlite3.connect(made["path"]) as copy:
            assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert copy.execute("SELECT count(*) FROM task WHERE id = ?", (task,)).fetchone() == (1,)
        site.shell("ida", "pw").fails("db backup", 7)


def test_an_agent_without_a_token_says_what_to_do(fresh):
    ran = fresh.fails("agent --server 127.0.0.1:1", 3)
    assert "user token create --worker" in ran.err


def test_an_agent_with_a_token_file(tmp_path, scitq_argv):
    with Site(tmp_path, scitq_argv) as site:
        token = tmp_path / "token"
        token.write_text(site.ok("user token create --worker --ttl 1h").out)
        away = site.shell()
        words = [
            "agent",
            "--token-file",
            str(token),
            "--name",
            "away",
            "--no-bare",
            "--prefetch",
            "2",
            "--work-dir",
            str(tmp_path / "work"),
        ]
        process = away.start(words, start_new_session=True)
        try:
            (row,) = wait_until(lambda: [row for row in site.workers() if row["status"] == "ready"], "the worker")
            assert (row["name"], row["prefetch"], row["allows_bare"]) == ("away", 2, False)
            assert token.read_text().strip() not in Path(f"/proc/{process.pid}/cmdline").read_text()
            task = site.create("true")
            assert "bare" in site.ok(f"task explain --id {task}").out
        finally:
            end(process)
            process.communicate()
