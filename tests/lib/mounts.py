"""Small file systems of their own, for tests of full disks and of folders that lie apart."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lib.site import end, wait_until


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """`folder` (made if missing) as a file system in memory of `size`; the test is skipped where mounting is not allowed."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    folder.mkdir(parents=True, exist_ok=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", folder], check=False).returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def resize(folder: Path, size: str) -> None:
    """Give a mounted `tmpfs` another size."""
    subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)


@contextmanager
def sshfs(folder: Path, behind: Path, *options: str) -> Iterator[Path]:
    """`folder` (made if missing) as a network file system that keeps its files in `behind`: sshfs, to an SFTP server without ssh."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists():
        pytest.skip("mounting needs root and /dev/fuse")
    servers = [Path(place) for place in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server") if Path(place).exists()]
    if shutil.which("sshfs") is None or not servers:
        pytest.fail("sshfs or sftp-server is not here; on Debian: apt-get install sshfs openssh-sftp-server")
    folder.mkdir(parents=True, exist_ok=True)
    behind.mkdir(parents=True, exist_ok=True)
    ssh = behind.with_name(behind.name + "-ssh")
    ssh.write_text(f"#!/bin/sh\nexec {servers[0]}\n")
    ssh.chmod(0o755)
    words = ["sshfs", "-f", f"localhost:{behind}", str(folder)]
    for option in (f"ssh_command={ssh}", *options):
        words += ["-o", option]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: process.poll() is not None or folder.is_mount(), "the mount")
        assert process.poll() is None, f"sshfs ended with {process.returncode}"
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=False)
        end(process)
