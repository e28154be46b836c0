"""Which file system holds a folder, and whether other machines use it too."""

from __future__ import annotations

import os
import re
from pathlib import Path

_NETWORK = {
    "9p", "afs", "beegfs", "ceph", "cifs", "coda", "fhgfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "orangefs",
    "panfs", "prl_fs", "pvfs2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
}  # fmt: skip
_LOCAL_BY_FUSE = {"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.ntfs-3g"}


def kind_of(folder: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The type of the file system that holds `folder`, which need not exist yet, as the kernel names it; empty when unknown.

    Told by the device, else by the longest mount point above the folder, as the kernel lists them (`mounts`).
    """
    real = os.path.realpath(folder)
    there = real
    while not os.path.exists(there):  # noqa: PTH110 - a text, as the mount points are
        there = os.path.dirname(there)  # noqa: PTH120 - as above
    number = os.stat(there).st_dev  # noqa: PTH116 - as above
    device = f"{os.major(number)}:{os.minor(number)}"
    try:
        lines = mounts.read_bytes().splitlines()
    except OSError:
        return ""
    best, kind = (False, -1), ""
    for line in lines:
        before, _, after = line.partition(b" - ")
        words = before.split(b" ")
        point = os.fsdecode(re.sub(rb"\\([0-7]{3})", lambda match: bytes([int(match[1], 8)]), words[4]))
        if words[2].decode() == device and there == real:
            rank = (True, len(point))
        elif real == point or real.startswith(point.rstrip("/") + "/"):
            rank = (False, len(point))
        else:
            continue
        if rank >= best:
            best, kind = rank, after.split(b" ")[0].decode()
    return kind


def is_network(kind: str) -> bool:
    """Whether a file system of this type may be used by other machines; one in user space (FUSE) is taken for such unless known better."""
    return kind in _NETWORK or (kind.split(".")[0] == "fuse" and kind not in _LOCAL_BY_FUSE)
