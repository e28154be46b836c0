"""Where things lie for a user."""

from __future__ import annotations

import os
import pwd
import tempfile
from pathlib import Path

import pytest

from scitq.util import paths


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "SCITQ_CACHE"):
        monkeypatch.delenv(name, raising=False)


def home_is(monkeypatch: pytest.MonkeyPatch, folder: str) -> None:
    """Let the system say that this user's home is `folder`."""
    entry = pwd.struct_passwd(("user", "x", os.getuid(), os.getgid(), "", folder, "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwuid", lambda _uid: entry)


def test_without_home_the_systems_word_counts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_is(monkeypatch, str(tmp_path))
    assert paths.data_folder() == tmp_path / ".local/share/scitq"
    assert paths.config_folder() == tmp_path / ".config/scitq"
    assert paths.cache_folder() == tmp_path / ".cache/scitq"


@pytest.mark.parametrize("home", ["/nonexistent", ""])
def test_without_a_usable_home_it_is_a_temporary_folder(monkeypatch: pytest.MonkeyPatch, home: str) -> None:
    home_is(monkeypatch, home)
    assert paths.data_folder() == Path(tempfile.gettempdir()) / f"scitq-{os.getuid()}/.local/share/scitq"


def test_a_user_whom_the_system_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(uid: int) -> pwd.struct_passwd:
        raise KeyError(uid)

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert paths.data_folder() == Path(tempfile.gettempdir()) / f"scitq-{os.getuid()}/.local/share/scitq"


def test_home_beats_the_systems_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home_is(monkeypatch, "/elsewhere")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.data_folder() == tmp_path / ".local/share/scitq"
