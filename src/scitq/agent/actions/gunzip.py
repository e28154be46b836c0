"""`|gunzip`: one file decompressed in its place, with all its members (contract GZ-1, GZ-2)."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from scitq.agent.actions import content
from scitq.agent.actions.content import Content
from scitq.agent.actions.limits import Meter
from scitq.agent.actions.untar import write_all
from scitq.errors import StorageError

_CHUNK: Final = 1 << 20


def unzipped_name(name: str) -> str:
    """`x.gz` becomes `x`, `x.tgz` `x.tar`; a name without such an ending stays."""
    lower = name.lower()
    if lower.endswith(".tgz"):
        return f"{name[:-4]}.tar"
    return name[:-3] if lower.endswith(".gz") and len(name) > 3 else name


def gunzip(packed: Path, target: Path, meter: Meter) -> None:
    """Write the content of `packed` to the new file `target`, with the same mode, and delete `packed`."""
    meter.begin(content.file_size(packed))
    if content.kind_of(content.read_head(packed)) is not Content.GZIP:
        raise StorageError(f"{meter.uri} is not compressed with gzip")
    mode = packed.stat().st_mode & 0o777
    with content.reading(meter.uri, "gzip file"), content.unpacked(packed, Content.GZIP) as stream, target.open("xb", buffering=0) as file:
        while chunk := stream.read(_CHUNK):
            meter.add_bytes(len(chunk))
            write_all(file, chunk)
    target.chmod(mode)
    packed.unlink()
