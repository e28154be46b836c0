"""The script that starts test services ends what it started, and nothing else."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def common():
    sys.path.insert(0, str(ROOT / "build"))
    try:
        from service import common

        yield common
    finally:
        sys.path.remove(str(ROOT / "build"))


@pytest.fixture
def sleeper():
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def facts(common, pid: int, **changes):
    return {"pid": pid, "start": common.start_time(pid), "grace_s": 5} | changes


def test_a_process_is_ended_by_number_and_start_time(common, sleeper):
    common.end([facts(common, sleeper.pid)])
    assert common.start_time(sleeper.pid) is None


def test_another_process_of_the_same_number_is_left_alone(common, sleeper):
    common.end([facts(common, sleeper.pid, start="1")])
    assert sleeper.poll() is None
    assert not common.alive([facts(common, sleeper.pid, start="1")])
    assert common.alive([facts(common, sleeper.pid)])


def test_a_process_deaf_to_sigterm_is_killed(common, tmp_path):
    script = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); open('ready', 'w'); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "ready").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    common.end([facts(common, child.pid, grace_s=0.2)])
    assert common.start_time(child.pid) is None


def test_a_service_that_ends_at_once_is_reported_with_its_log(common, tmp_path):
    processes = common.Processes("broken", tmp_path)
    processes.start([sys.executable, "-c", "import sys; sys.exit('no such colour')"])
    with pytest.raises(common.ServiceError, match="no such colour"):
        processes.until(lambda: False, timeout_s=60)


def test_a_free_port_can_be_bound(common):
    import socket

    port = common.free_port()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))


def test_the_folder_with_enough_room_comes_first(common, tmp_path):
    assert common.roomiest(Path("/nonexistent"), tmp_path, enough_gib=0) == tmp_path
    assert common.roomiest(tmp_path, Path("/proc"), enough_gib=10**9) == tmp_path
