"""What tests of the one file share: its layout, its cache, mounts that nobody else sees."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import zstandard

ROOT = Path(__file__).parents[2]
TRAILER = struct.Struct("<8s6Q")

Run = Callable[..., subprocess.CompletedProcess[str]]


def versions(cache: Path) -> list[str]:
    """What lies in the cache: the folders of the versions, and whatever was left."""
    return sorted(one.name for one in (cache / "app").iterdir() if one.name != ".lock")


def renamed(exe: Path, target: Path, suffix: str) -> Path:
    """A copy of the executable that calls itself another version: its name ends in `suffix`."""
    shutil.copy(exe, target)
    with target.open("r+b") as file:
        file.seek(-TRAILER.size, 2)
        magic, start, packed, at, length, count, _ = TRAILER.unpack(file.read())
        file.seek(at)
        line, _, rest = file.read(length).partition(b"\n")
        assert line.startswith(b"v 0 0 ")
        manifest = line[: -len(suffix)] + suffix.encode() + b"\n" + rest
        checksum = 0xCBF29CE484222325
        for byte in manifest:
            checksum = (checksum ^ byte) * 0x100000001B3 % (1 << 64)
        file.seek(at)
        file.write(manifest + TRAILER.pack(magic, start, packed, at, length, count, checksum))
    return target


def contents(exe: Path) -> dict[str, bytes]:
    """What is in the file: the launcher, the manifest, and each file and link by its path."""
    whole = exe.read_bytes()
    _, start, packed, at, length, _, _ = TRAILER.unpack(whole[-TRAILER.size :])
    manifest = whole[at : at + length]
    data = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj().decompress(whole[start : start + packed])
    found = {"(launcher)": whole[:start], "(manifest)": manifest}
    done = 0
    for line in manifest.decode().splitlines()[2:]:
        kind, _, size, path = line.split(" ", 3)
        if kind != "d":
            found[path] = data[done : done + int(size)]
            done += int(size)
    return found


def in_mounts(commands: str, argv: Sequence[str | Path]) -> list[str]:
    """The words that run `argv` where shell `commands` have mounted something; nobody else sees it."""
    unshare = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--mount"]
    return [*unshare, "sh", "-ec", f'{commands}\nexec "$@"', "sh", *[str(word) for word in argv]]
