"""Removing what tasks left: closed, deep and odd trees."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from scitq.util import files


def dig(top: Path, depth: int, name: str = "d") -> None:
    """A file `depth` folders below `top`, whose path may be longer than any call takes."""
    here = os.open(top, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir(name, dir_fd=here)
        below = os.open(name, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("x", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)


def test_trees_deeper_than_recursion_and_paths_are_removed(tmp_path):
    for name, depth in (("d", 1100), ("long" * 50, 40)):
        (tmp_path / name).mkdir()
        dig(tmp_path / name, depth, name)
        files.remove_tree(tmp_path / name)
        assert not (tmp_path / name).exists()


def test_links_files_and_what_is_absent(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"1")
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/x").write_bytes(b"1")
    (tree / "a/link").symlink_to(outside)
    (tree / "top").symlink_to(outside)
    os.mkfifo(tree / "pipe")
    files.remove_tree(tree)
    assert not tree.exists()
    files.remove_tree(tree)
    (tmp_path / "link").symlink_to(outside)
    files.remove_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").is_file()
    files.remove_tree(outside / "kept")
    assert not list(outside.iterdir())


@pytest.mark.skipif(os.geteuid() != 0, reason="root puts on the rights of another user")
def test_closed_folders_of_ones_own_are_opened_and_those_of_others_said():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # which every user may enter
        tree = Path(folder, "tree")
        (tree / "closed/inner/deep").mkdir(parents=True)
        (tree / "closed/inner/x").write_bytes(b"1")
        (tree / "root/inner").mkdir(parents=True)
        for path in (Path(folder), tree, *tree.rglob("*")):
            if "root" not in path.parts[3:]:
                os.chown(path, 12345, 12345)
        for name in ("closed/inner/deep", "closed/inner", "closed"):
            (tree / name).chmod(0)
        child = os.fork()
        if not child:
            status = 3
            try:
                os.setgid(12345)
                os.setuid(12345)
                try:
                    files.remove_tree(tree)
                except PermissionError:
                    status = 0
            finally:
                os._exit(status)
        assert os.waitpid(child, 0)[1] == 0
        assert (tree / "root/inner").is_dir()
        (tree / "root/inner").rmdir()
        files.remove_tree(tree)
        assert not tree.exists()
