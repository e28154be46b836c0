"""One bare task as the keeper sees it: its process, its two pipes and its log."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
from contextlib import suppress
from pathlib import Path

from scitq.agent.keeper import exits
from scitq.agent.keeper.messages import NOT_STARTED, Exited, Key, Start
from scitq.agent.tasklog import STDERR, STDOUT, LogWriter
from scitq.util import clock, proc

READ_BYTES = 256 * 1024
KEPT_IN_MEMORY = 64 * 1024
MARK = "SCITQ_ATTEMPT"
"""Environment variable that tells whose a process is, when it left its session and its parent ended."""


class Child:
    """Started by the constructor; OSError when it can't be."""

    def __init__(self, order: Start) -> None:
        self.key: Key = order.key
        self.blob = order.blob
        self.log = LogWriter(Path(order.log), order.log_cap)
        self.exited: Exited | None = None
        self.flush_at_s = 0.0
        self.is_blocked = False
        self.told_bytes = 0
        self.most_memory_bytes = order.most_memory_bytes
        self.is_out_of_memory = False
        self.peak_memory_bytes = 0
        self.status: int | None = None
        self.gone_at_s = 0.0
        self._usage = (0.0, 0, 0, 0)
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self.pipes = {out_read: STDOUT, err_read: STDERR}
        self.exit_fd = -1
        self.started_s = clock.monotonic_s()
        try:
            os.chdir(order.folder)
            order.env[MARK] = f"{order.key[0]}/{order.key[1]}"
            self.pid = proc.spawn(order.argv, order.env, stdout=out_write, stderr=err_write)
            try:
                self.exit_fd = exits.watch(self.pid)
            except BaseException:  # nobody would know of it
                os.killpg(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise
        except BaseException:
            os.close(out_read)
            os.close(err_read)
            raise
        finally:
            os.close(out_write)
            os.close(err_write)
        os.set_blocking(out_read, False)
        os.set_blocking(err_read, False)

    def read(self, descriptor: int) -> bool:
        """Take what one pipe holds, at most READ_BYTES; False at its end."""
        try:
            data = os.read(descriptor, READ_BYTES)
        except BlockingIOError:
            return True
        if not data:
            return False
        if len(data) >= 65536:
            with suppress(OSError):  # a limit of the user on pipe memory
                fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, 1 << 20)
        self.log.write(self.pipes[descriptor], data)
        return True

    def drain(self) -> list[int]:
        """Read all that is there now; returns the pipes that are at their end."""
        ended = []
        for descriptor in self.pipes:
            before = -1
            while self.log.kept_bytes < KEPT_IN_MEMORY * 16 and before != self.log.size:
                before = self.log.size
                if not self.read(descriptor):
                    ended.append(descriptor)
                    break
        return ended

    def reap(self) -> None:
        """The leader has ended: kill its session's rest and take its status and use."""
        self.signal(signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        self.status = os.waitstatus_to_exitcode(status)
        # A process made by vfork counts its parent's memory in ru_maxrss: no more than that says nothing about the task,
        # whose peak is then the largest that was seen while it ran, or not known (0) when it ended before the first look.
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        largest = used.ru_maxrss * 1024 if used.ru_maxrss > own else 0
        memory = max(largest, self.peak_memory_bytes)
        self._usage = (used.ru_utime + used.ru_stime, memory, used.ru_inblock * 512, used.ru_oublock * 512)
        self.gone_at_s = clock.monotonic_s()

    def signal(self, number: int) -> None:
        """Signal the whole process group; a group that is gone is fine."""
        if self.status is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def finish(self) -> Exited:
        """The final notice; the log is complete."""
        kept = b""
        if self.log.is_on_disk:
            self.log.spill()
        else:
            kept = self.log.take()
        self.log.close()
        cpu_s, memory, read, written = self._usage
        wall_s = self.gone_at_s - self.started_s
        is_oom = self.is_out_of_memory
        self.exited = Exited(self.key, self.status or 0, "", wall_s, cpu_s, memory, read, written, kept, self.log.size, is_oom)
        return self.exited


def not_started(key: Key, error: OSError) -> Exited:
    """The notice of a child that could not be executed."""
    text = error.strerror or str(error)
    name = error.filename if isinstance(error.filename, str) else ""
    return Exited(key, NOT_STARTED, f"{name}: {text}" if name else text, 0.0, 0.0, 0, 0, 0, b"", 0)


def marked_pids(key: Key, pids: list[int]) -> list[int]:
    """Those of `pids` whose environment says that they belong to `key`."""
    wanted = f"{MARK}={key[0]}/{key[1]}\0".encode()
    found = []
    for pid in pids:
        with suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes()
            if wanted in environment:
                found.append(pid)
    return found


def holders(pipes: list[int], pids: list[int]) -> list[int]:
    """Those of `pids` that hold one of the pipes open."""
    names = {f"pipe:[{os.fstat(pipe).st_ino}]" for pipe in pipes}
    found = []
    for pid in pids if names else []:
        with suppress(OSError):
            if any(str(link.readlink()) in names for link in Path(f"/proc/{pid}/fd").iterdir()):
                found.append(pid)
    return found


def children_of_all() -> dict[int, list[int]]:
    """The children of every process that can be seen."""
    below: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                after_name = (entry / "stat").read_bytes().rpartition(b") ")[2].split()
                below.setdefault(int(after_name[1]), []).append(int(entry.name))
    return below


def descendants(pid: int, below: dict[int, list[int]] | None = None) -> list[int]:
    """All processes below `pid`, nearest first, without itself."""
    if below is None:
        below = children_of_all()
    found = list(below.get(pid, []))
    for child in found:
        found.extend(below.get(child, []))
    return found


def memory_bytes(pids: list[int]) -> int:
    """Resident memory of the processes together; pages that they share count once for each, when they are mapped files not at all."""
    pages = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            resident, shared = Path(f"/proc/{pid}/statm").read_bytes().split()[1:3]
            pages += int(resident) - int(shared)
    return pages * os.sysconf("SC_PAGE_SIZE")


def largest_bytes(pid: int) -> int:
    """The most that the largest of `pid` and the processes below it has had resident; 0 when none can be seen any more."""
    most = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        with suppress(OSError, ValueError, IndexError):
            after = Path(f"/proc/{one}/status").read_bytes().partition(b"VmHWM:")[2]
            most = max(most, int(after.split(None, 1)[0]) * 1024)
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_bytes().split())
    return most


def cpu_s(pids: list[int]) -> float:
    """Processor time of the processes together, and of the children that they have waited for."""
    ticks = 0
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            ticks += sum(map(int, Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")
