"""Task folders are used again only when nothing of a task is left in them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from scitq.agent.folders import TaskFolders
from scitq.agent.spare import SpareFolders


def made(spare: SpareFolders, root: Path) -> TaskFolders:
    folders = TaskFolders(root)
    spare.make(folders)
    assert all(folder.is_dir() for folder in (folders.input, folders.output, folders.resource, folders.temp))
    return folders


def test_clean_folders_are_used_again(tmp_path: Path) -> None:
    spare = SpareFolders(tmp_path / "spare")
    first = made(spare, tmp_path / "1-1")
    number = first.root.stat().st_ino
    assert spare.keep(first)
    assert not first.root.exists()
    assert made(spare, tmp_path / "2-1").root.stat().st_ino == number


@pytest.mark.parametrize(
    "use",
    [
        lambda folders: (folders.output / "left").touch(),
        lambda folders: (folders.temp / ".hidden").mkdir(),
        lambda folders: folders.log.touch(),
        lambda folders: folders.input.chmod(0o777),
        lambda folders: folders.root.chmod(0o755),
        lambda folders: folders.input.rmdir(),
        lambda folders: (folders.temp.rmdir(), folders.temp.symlink_to("/etc")),
    ],
)
def test_what_a_task_has_changed_is_not_kept(tmp_path: Path, use: Callable[[TaskFolders], object]) -> None:
    spare = SpareFolders(tmp_path / "spare")
    folders = made(spare, tmp_path / "1-1")
    use(folders)
    assert not spare.keep(folders)
    assert folders.root.exists()


def test_what_an_earlier_life_kept_is_gone(tmp_path: Path) -> None:
    spare = SpareFolders(tmp_path / "spare")
    spare.keep(made(spare, tmp_path / "1-1"))
    SpareFolders(tmp_path / "spare")
    assert list((tmp_path / "spare").iterdir()) == []
