"""What tests of the fleet look at beside the server's own words."""

from __future__ import annotations

from pathlib import Path

from tests.lib.site import Site


def agents_of(site: Site) -> list[int]:
    """The pids of living agents that the server's providers started, and of their keepers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                is_zombie = (entry / "stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
            except OSError:
                continue
            if b"agent" in words and any(word.startswith(bytes(site.data)) for word in words) and not is_zombie:
                found.append(int(entry.name))
    return sorted(found)


def is_sleeping(marker: Path) -> bool:
    """Whether the `sleep` is alive whose number a task has written into `marker`."""
    try:
        words = Path(f"/proc/{marker.read_text().strip()}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0] == b"sleep"
