"""Live figures of this worker; rates are those of the interval since the last look (contract STT-2, STT-3)."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

from scitq.agent import hardware
from scitq.protocol.messages.agent import Stats
from scitq.util import clock

_PSEUDO = frozenset({"squashfs", "overlay", "tmpfs", "devtmpfs", "ramfs", "proc", "sysfs", "nsfs", "autofs", "fuse.snapfuse"})


class StatsSampler:
    """Keeps the counters of the last look."""

    def __init__(self, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._process = psutil.Process()
        self._last_s = 0.0
        self._cpu: tuple[float, float, float] = (0.0, 0.0, 0.0)
        self._disk = (0, 0)
        self._net = (0, 0)
        self._own_disks = _whole_disks()
        self.sample(0)

    def sample(self, running: int) -> Stats:
        """Look now."""
        now_s = clock.monotonic_s()
        interval_s = now_s - self._last_s
        cpu, disk, net = _cpu_times(), self._disk_bytes(), _net_bytes()
        total = cpu[0] - self._cpu[0]
        idle, iowait = cpu[1] - self._cpu[1], cpu[2] - self._cpu[2]
        load = os.getloadavg()
        stats = Stats(
            cpu_percent=_percent(total - idle - iowait, total),
            memory_used_bytes=hardware.memory_used_bytes(),
            memory_total_bytes=hardware.memory_bytes(),
            load_1=load[0],
            load_5=load[1],
            load_15=load[2],
            iowait_percent=_percent(iowait, total),
            disks=self._usage(),
            disk_read_bytes_s=_rate(disk[0] - self._disk[0], interval_s),
            disk_write_bytes_s=_rate(disk[1] - self._disk[1], interval_s),
            net_in_bytes_s=_rate(net[0] - self._net[0], interval_s),
            net_out_bytes_s=_rate(net[1] - self._net[1], interval_s),
            interval_s=round(interval_s, 3) if self._last_s else 0.0,
            running=running,
            agent_rss_bytes=self._process.memory_info().rss,
        )
        self._last_s, self._cpu, self._disk, self._net = now_s, cpu, disk, net
        return stats

    def _disk_bytes(self) -> tuple[int, int]:
        counters = psutil.disk_io_counters(perdisk=True) or {}
        chosen = [entry for name, entry in counters.items() if name in self._own_disks]
        return sum(entry.read_bytes for entry in chosen), sum(entry.write_bytes for entry in chosen)

    def _usage(self) -> list[tuple[str, int, int]]:
        points: dict[str, str] = {}
        with contextlib.suppress(OSError):
            for partition in psutil.disk_partitions(all=False):
                if partition.fstype not in _PSEUDO and not partition.device.startswith("/dev/loop"):
                    points.setdefault(partition.device, partition.mountpoint)
        found: list[tuple[str, int, int]] = []
        for point in [*points.values(), str(self._work_dir)]:
            with contextlib.suppress(OSError):
                usage = psutil.disk_usage(point)
                if Path(point).is_dir() and (point == str(self._work_dir) or point not in [entry[0] for entry in found]):
                    found.append((point, usage.used, usage.total))
        return found


def _whole_disks() -> set[str]:
    """Names of real disks: partitions, loop, device mapper and memory disks would count bytes twice or for nothing."""
    try:
        names = [entry.name for entry in Path("/sys/block").iterdir()]
    except OSError:
        return set()
    return {name for name in names if not name.startswith(("loop", "ram", "zram", "dm-", "md", "sr", "fd"))}


def _cpu_times() -> tuple[float, float, float]:
    """(all, idle, waiting for disks), in seconds since the machine started."""
    times = psutil.cpu_times()
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    return total, times.idle, getattr(times, "iowait", 0.0)


def _net_bytes() -> tuple[int, int]:
    counters = psutil.net_io_counters(pernic=True) or {}
    chosen = [entry for name, entry in counters.items() if hardware.is_outward(name)]
    return sum(entry.bytes_recv for entry in chosen), sum(entry.bytes_sent for entry in chosen)


def _percent(part: float, whole: float) -> float:
    return round(min(100.0, max(0.0, 100.0 * part / whole)), 1) if whole > 0 else 0.0


def _rate(count: float, seconds: float) -> float:
    return round(max(0.0, count) / seconds, 1) if seconds > 0 else 0.0
