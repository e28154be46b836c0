"""What this worker has: CPUs, memory, disk and GPUs, within the limits of its cgroup, its CPU set and its Slurm allocation."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from pathlib import Path

import psutil

from scitq.protocol.messages.agent import Hardware
from scitq.util import proc

_GIB = 1 << 30


def measure(work_dir: Path) -> Hardware:
    """Look once; takes up to some seconds where nvidia-smi is slow."""
    count, name, memory_gib = _gpus()
    return Hardware(
        cpus=cpus(),
        mem_gib=round(memory_bytes() / _GIB, 2),
        disk_gb=round(shutil.disk_usage(work_dir).total / 1e9, 1),
        gpus=count,
        gpu=name,
        gpumem_gib=memory_gib,
    )


def cpus() -> float:
    """CPUs that this process may use: its affinity, cut by the cgroup's quota."""
    count = float(len(os.sched_getaffinity(0)))
    quota = _cpu_quota()
    return round(min(count, quota), 2) if quota else count


def memory_bytes() -> int:
    """Memory that this process may use."""
    total = psutil.virtual_memory().total
    return min([total, *(limit for limit in _memory_limits() if 0 < limit < total)])


def memory_used_bytes() -> int:
    """Used of `memory_bytes`: of the cgroup when that has a limit, without its file cache, else of the machine."""
    memory = psutil.virtual_memory()
    if memory_bytes() < memory.total:
        for folder in _cgroup_folders("memory"):
            for usage, cache in (("memory.current", "inactive_file"), ("memory.usage_in_bytes", "total_inactive_file")):
                used = _number(folder / usage)
                if used is not None:
                    return max(0, used - _field(folder / "memory.stat", cache))
    return int(memory.total - memory.available)


def addresses() -> list[str]:
    """Addresses of this machine that others may use, IPv4 first."""
    found: dict[str, None] = {}
    for family in (socket.AF_INET, socket.AF_INET6):
        for name, entries in psutil.net_if_addrs().items():
            if is_outward(name):
                for entry in entries:
                    if entry.family == family and not entry.address.startswith(("fe80:", "127.")):
                        found[entry.address] = None
    return list(found)


def is_outward(interface: str) -> bool:
    """Whether a network interface leads out of the machine: no loopback, no bridge or cable of containers."""
    return not interface.startswith(("lo", "docker", "veth", "br-", "virbr", "cni", "podman", "flannel", "cali", "tun", "dummy", "ifb"))


def _cgroup_folders(controller: str) -> list[Path]:
    """Folders of this process's cgroup that hold `controller`'s files, the nearest first, then its parents."""
    found: list[Path] = []
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = Path("/sys/fs/cgroup")
            if controllers:
                if controller not in controllers.split(","):
                    continue
                root /= controller
            folder = root / path.lstrip("/")
            while True:
                if folder.is_dir():
                    found.append(folder)
                if folder == root or root not in folder.parents:
                    break
                folder = folder.parent
    return found


def _cpu_quota() -> float | None:
    quotas = []
    for folder in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            if quota != "max":
                quotas.append(int(quota) / int(period))
        limit, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
        if limit and limit > 0 and period_us:
            quotas.append(limit / period_us)
    return min(quotas, default=None)


def _memory_limits() -> list[int]:
    found = []
    for folder in _cgroup_folders("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit is not None:
                found.append(limit)
    with contextlib.suppress(KeyError, ValueError):
        found.append(int(os.environ["SLURM_MEM_PER_NODE"]) << 20)
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None


def _field(path: Path, name: str) -> int:
    with contextlib.suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith(f"{name} "):
                return int(line.split()[1])
    return 0


def _gpus() -> tuple[int, str, float]:
    """Number, name and memory (GiB, of the smallest) of NVIDIA's GPUs that this process may use."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0, "", 0.0
    try:
        done = proc.run([program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"], timeout_s=20)
        rows = [line.rsplit(",", 1) for line in done.stdout.decode().splitlines() if "," in line] if done.returncode == 0 else []
        memory = [float(row[1]) / 1024 for row in rows]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return 0, "", 0.0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(rows) if visible is None else len([entry for entry in visible.split(",") if entry.strip()])
    return (count, rows[0][0].strip(), round(min(memory), 2)) if rows and count else (0, "", 0.0)
