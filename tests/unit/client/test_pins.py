import stat

import pytest

from scitq.client import pins, sessions
from scitq.client.locate import Address
from scitq.errors import UsageError

KEY, OTHER = "a" * 40, "b" * 40
HERE = Address("here", 1)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("SCITQ_SERVER_KEY", raising=False)
    monkeypatch.setattr(pins, "SITE_FILE", tmp_path / "site")
    return tmp_path


def test_pins_are_kept_and_replaced():
    assert pins.find(HERE) is None
    file = pins.add(HERE, KEY)
    assert file is not None
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    pins.add(Address("::1", 2), OTHER)
    assert pins.find(HERE) == (KEY, str(file))
    pins.add(HERE, OTHER)
    assert pins.find(HERE) == (OTHER, str(file))
    assert file.read_text() == f"[::1]:2 {OTHER}\nhere:1 {OTHER}\n"


def test_the_site_and_the_environment_can_seed(home, monkeypatch):
    pins.SITE_FILE.write_text(f"# keys\nhere:1 {KEY}\n")
    assert pins.find(HERE) == (KEY, str(pins.SITE_FILE))
    pins.add(HERE, OTHER)
    assert pins.find(HERE) == (OTHER, str(pins.user_file()))
    monkeypatch.setenv("SCITQ_SERVER_KEY", f" {KEY} ")
    assert pins.find(HERE) == (KEY, "SCITQ_SERVER_KEY")
    monkeypatch.setenv("SCITQ_SERVER_KEY", "short")
    with pytest.raises(UsageError, match="SCITQ_SERVER_KEY"):
        pins.find(HERE)


def test_a_damaged_line_is_told(home):
    pins.user_file().parent.mkdir(parents=True)
    pins.user_file().write_text("other:1 x\nhere:1 nonsense\n")
    with pytest.raises(UsageError, match="line 2"):
        pins.find(HERE)


def test_a_folder_that_can_not_be_written(home, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", "/proc/nowhere")
    assert pins.add(HERE, KEY) is None


def test_sessions_are_by_server_and_private(home):
    if sessions.file_for(HERE) is None:
        assert not sessions.write(HERE, "t")
        return
    assert sessions.read(HERE) is None
    assert sessions.write(HERE, "token")
    assert sessions.read(HERE) == "token"
    assert sessions.read(Address("here", 2)) is None
    file = sessions.file_for(HERE)
    assert file is not None
    file.chmod(0o640)
    assert sessions.read(HERE) is None
    file.chmod(0o600)
    file.parent.chmod(0o750)
    assert sessions.read(HERE) is None
    file.parent.chmod(0o700)
    sessions.remove(HERE)
    assert sessions.read(HERE) is None
    sessions.remove(HERE)


def test_a_link_in_place_of_the_session_file_is_not_followed(home):
    file = sessions.file_for(HERE)
    if file is None:
        return
    sessions.write(HERE, "token")
    (home / "else").write_text("stolen")
    (home / "else").chmod(0o600)
    file.unlink()
    file.symlink_to(home / "else")
    assert sessions.read(HERE) is None
