"""What a worker says that it has: limits of both kinds of cgroups, and interfaces that lead outward."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq.agent import hardware, stats


@pytest.mark.parametrize("name", ["lo", "docker0", "veth12ab", "br-12ab", "virbr0", "cni0", "podman1", "dummy0"])
def test_stt_02_interfaces_of_containers_and_loopback_do_not_count(name: str) -> None:
    assert not hardware.is_outward(name)


@pytest.mark.parametrize("name", ["eth0", "enp3s0", "wlan0", "ib0", "bond0"])
def test_stt_02_real_interfaces_count(name: str) -> None:
    assert hardware.is_outward(name)


def folder_of(root: Path, **files: str) -> Path:
    root.mkdir(parents=True)
    for name, text in files.items():
        (root / name.replace("__", ".")).write_text(text)
    return root


def test_the_strictest_quota_of_either_kind_of_cgroup_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = [
        folder_of(tmp_path / "v2", cpu__max="150000 100000\n"),
        folder_of(tmp_path / "v2-without", cpu__max="max 100000\n"),
        folder_of(tmp_path / "v1", cpu__cfs_quota_us="50000\n", cpu__cfs_period_us="100000\n"),
        folder_of(tmp_path / "v1-without", cpu__cfs_quota_us="-1\n", cpu__cfs_period_us="100000\n"),
    ]
    monkeypatch.setattr(hardware, "_cgroup_folders", lambda _: folders)
    assert hardware.cpus() == 0.5
    monkeypatch.setattr(hardware, "_cgroup_folders", lambda _: folders[1:2] + folders[3:])
    assert hardware.cpus() >= 1


def test_the_strictest_memory_limit_of_either_kind_counts_and_use_leaves_out_the_file_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    v2 = folder_of(tmp_path / "v2", memory__max=f"{64 << 20}\n", memory__current=f"{40 << 20}\n", memory__stat=f"inactive_file {8 << 20}\n")
    v1 = folder_of(
        tmp_path / "v1",
        memory__limit_in_bytes=f"{32 << 20}\n",
        memory__usage_in_bytes=f"{20 << 20}\n",
        memory__stat=f"total_inactive_file {5 << 20}\n",
    )
    for folders, limit, used in (([v2], 64, 32), ([v1], 32, 15), ([v2, v1], 32, 32)):
        monkeypatch.setattr(hardware, "_cgroup_folders", lambda _, folders=folders: folders)
        assert (hardware.memory_bytes() >> 20, hardware.memory_used_bytes() >> 20) == (limit, used)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "16")
    assert hardware.memory_bytes() == 16 << 20


def test_a_limit_beyond_the_machine_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_MEM_PER_NODE", raising=False)
    without = folder_of(tmp_path / "v1", memory__limit_in_bytes=f"{(1 << 63) - 4096}\n", memory__max="max\n")
    monkeypatch.setattr(hardware, "_cgroup_folders", lambda _: [without])
    assert hardware.memory_bytes() == hardware.psutil.virtual_memory().total


def test_stt_02_only_whole_real_disks_are_counted() -> None:
    assert not [name for name in stats._whole_disks() if name.startswith(("loop", "ram", "zram", "dm-", "md", "sr"))]


def test_stt_02_pseudo_file_systems_are_left_out_and_the_work_folder_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Partition:
        def __init__(self, device: str, mountpoint: str, fstype: str) -> None:
            self.device, self.mountpoint, self.fstype = device, mountpoint, fstype

    mounts = [
        Partition("/dev/sda1", "/", "ext4"),
        Partition("/dev/sda1", str(tmp_path.parent), "ext4"),
        Partition("overlay", "/proc", "overlay"),
        Partition("/dev/loop3", "/dev", "ext4"),
        Partition("tmpfs", "/sys", "tmpfs"),
    ]
    monkeypatch.setattr(stats.psutil, "disk_partitions", lambda all: mounts)
    sample = stats.StatsSampler(tmp_path).sample(3)
    assert [point for point, _, _ in sample.disks] == ["/", str(tmp_path)]
    assert sample.running == 3
    assert sample.agent_rss_bytes > 1 << 20


def test_stt_03_rates_are_those_of_real_interfaces_and_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net:
        def __init__(self, count: int) -> None:
            self.bytes_recv = self.bytes_sent = count

    class Disk:
        def __init__(self, count: int) -> None:
            self.read_bytes = self.write_bytes = count

    base = [0]
    now = [100.0]
    monkeypatch.setattr(stats, "_whole_disks", lambda: {"sda"})
    monkeypatch.setattr(stats.clock, "monotonic_s", lambda: now[0])
    nets = {"eth0": 1000, "lo": 50000, "docker0": 70000, "veth1": 90000}
    monkeypatch.setattr(stats.psutil, "net_io_counters", lambda pernic: {name: Net(count * base[0]) for name, count in nets.items()})
    disks = {"sda": 2000, "sda1": 2000, "loop0": 4000, "dm-0": 2000}
    monkeypatch.setattr(stats.psutil, "disk_io_counters", lambda perdisk: {name: Disk(count * base[0]) for name, count in disks.items()})
    sampler = stats.StatsSampler(tmp_path)
    base[0], now[0] = 1, 102.0
    sample = sampler.sample(0)
    assert (sample.net_in_bytes_s, sample.net_out_bytes_s) == (500.0, 500.0)
    assert (sample.disk_read_bytes_s, sample.disk_write_bytes_s) == (1000.0, 1000.0)
    assert sample.interval_s == 2.0
