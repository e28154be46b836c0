"""The provider `local`: agents as processes on the server's own machine.

An agent is found again after a restart of the server by marks in its environment, and starts once per name: it holds a
lock on a file of its own folder for as long as it lives, through a descriptor that it inherits.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

from scitq.broker.providers.base import (
    FlavorUnusableError,
    Machine,
    MachineRequest,
    MachineState,
    ProviderContext,
    Settings,
    agent_arguments,
    words_of,
)
from scitq.errors import ProviderError
from scitq.model.flavor import Flavor
from scitq.util import clock, files, proc, units

ENV_MACHINE = "SCITQ_MACHINE"
ENV_PROVIDER = "SCITQ_MACHINE_PROVIDER"
"""The marks; the children of an agent carry them too, its tasks do not."""
_STOP_S = 20.0
_KILL_S = 10.0
_CLEAR_S = 60.0
REGION = "local"
FLAVOR = "local"


class LocalProvider:
    """Starts, finds and stops agent processes. Options: update_period, cost, work_dir, arguments, grace, cpus, mem."""

    def __init__(self, name: str, options: Mapping[str, Any], context: ProviderContext) -> None:
        settings = Settings(name, options)
        self.name = name
        self.default_region = settings.text("region", REGION)
        self.update_period_s = units.parse_duration_s(settings.text("update_period", "1h"))
        self._cost = settings.number("cost", 0.0)
        self._cpus = settings.number("cpus", 0.0)
        self._mem_gib = settings.number("mem", 0.0)
        self._folder = Path(settings.text("work_dir") or context.folder)
        self._arguments = settings.texts("arguments")
        self._grace_s = units.parse_duration_s(settings.text("grace", f"{_STOP_S:.0f}s"))
        settings.end()
        self._mark = context.mark
        self._children: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def check(self) -> str:
        """The folder can be written."""
        try:
            files.make_private_folder(self._folder)
        except OSError as error:
            raise ProviderError(f"{self.name}: {error}") from None
        return f"processes on this machine, in {self._folder}"

    def list_flavors(self) -> list[Flavor]:
        """One flavor, `local`: this machine, measured."""
        self.check()
        cpus = self._cpus or float(len(os.sched_getaffinity(0)))
        mem_gib = self._mem_gib or round(psutil.virtual_memory().total / 2**30, 2)
        disk_gb = round(shutil.disk_usage(self._folder).total / 1e9, 1)
        return [
            Flavor(
                provider=self.name, region=self.default_region, name=FLAVOR, cpus=cpus, mem_gib=mem_gib, disk_gb=disk_gb, cost=self._cost
            )
        ]

    def create(self, request: MachineRequest) -> Machine:
        """Start the agent, unless one of this name lives."""
        if request.flavor.name != FLAVOR:
            raise FlavorUnusableError(f"{self.name}: there is one flavor here, {FLAVOR}, and no {request.flavor.name}")
        folder = self._folder / request.name
        try:
            files.make_private_folder(folder)
            token_file = folder / "token"
            files.write_atomically(token_file, request.bootstrap.token.encode(), 0o600)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ProviderError(f"{self.name}: {error}") from None
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return Machine(name=request.name, state=MachineState.RUNNING, message="it was running already")
            argv = agent_arguments(self.name, request, str(token_file), str(folder / "work"), self._arguments)
            with (folder / "agent.log").open("ab") as log:
                child = proc.start(
                    argv, env=self._environment(request), stdout=log, stderr=log, start_new_session=True, pass_fds=(lock,), cwd=folder
                )
        except OSError as error:
            raise ProviderError(f"{self.name}: {error}") from None
        finally:
            os.close(lock)
        with self._lock:
            self._children[child.pid] = child
        files.write_atomically(folder / "pid", _identity(child.pid).encode(), 0o600)
        return Machine(name=request.name, state=MachineState.RUNNING, provider_id=str(child.pid), addresses=("127.0.0.1",))

    def _environment(self, request: MachineRequest) -> dict[str, str]:
        return {
            ENV_MACHINE: request.name,
            ENV_PROVIDER: self.name,
            "SCITQ_SERVER_KEY": request.bootstrap.server_key,
        }

    def _reap(self) -> None:
        with self._lock:
            for pid in [pid for pid, child in self._children.items() if child.poll() is not None]:
                del self._children[pid]

    def _marked(self) -> dict[str, list[psutil.Process]]:
        """All living processes by the machine's name in their environment, oldest first."""
        self._reap()
        found: dict[str, list[psutil.Process]] = {}
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if environment.get(ENV_PROVIDER) == self.name and process.status() != psutil.STATUS_ZOMBIE:
                    name = environment.get(ENV_MACHINE, "")
                    if name.startswith(self._mark):
                        found.setdefault(name, []).append(process)
            except (psutil.Error, OSError):
                continue
        for processes in found.values():
            processes.sort(key=lambda process: (process.create_time(), process.pid))
        return found

    def _agent_lives(self, name: str) -> bool:
        """Whether the agent itself is there, not only what it left behind; one whose number was not written down yet is."""
        try:
            written = (self._folder / name / "pid").read_text()
        except OSError:
            return True
        return _identity(int(written.split()[0])) == written

    def find(self, names: Collection[str] | None = None) -> list[Machine]:
        """The agents of this server: those that live, and those that have ended by themselves, with their last words."""
        marked = {name: processes for name, processes in self._marked().items() if self._agent_lives(name)}
        found = [
            Machine(name=name, state=MachineState.RUNNING, provider_id=str(processes[0].pid), addresses=("127.0.0.1",))
            for name, processes in sorted(marked.items())
            if names is None or name in names
        ]
        for folder in sorted(self._folder.glob(f"{self._mark}*")):
            if folder.name not in marked and (names is None or folder.name in names) and (folder / "agent.log").is_file():
                with (folder / "agent.log").open("rb") as log:
                    log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                    said = words_of(log.read(), "its agent ended without a word")
                found.append(Machine(name=folder.name, state=MachineState.GONE, message=said))
        return found

    def delete(self, name: str) -> None:
        """Ask the agent to end, kill what is left after the grace (at once when the agent is dead), and remove its folder."""
        processes = self._marked().get(name, [])
        has_parted = False
        if processes and self._agent_lives(name):
            _signal(processes[0], signal.SIGTERM)
            deadline = clock.monotonic_s() + self._grace_s
            while not (has_parted := not self._marked().get(name)) and clock.monotonic_s() < deadline:
                clock.sleep_s(0.1)
        self.kill(name)
        work = self._folder / name / "work"
        if (work / "agent.uid").exists() and (not has_parted or any((work / "tasks").glob("*"))):
            self._clear(name, work)
        try:
            files.remove_tree(self._folder / name)
        except OSError as error:
            raise ProviderError(f"{self.name}: {error}") from None

    def _clear(self, name: str, work: Path) -> None:
        """Remove the containers of an agent that did not end by itself: they outlive it, and only the name in its folder tells them."""
        argv = [*proc.own_command(), "agent", "--clear", "--work-dir", str(work), *self._arguments]
        try:
            done = proc.run(argv, timeout_s=_CLEAR_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ProviderError(f"{self.name}: the containers of {name} can't be removed: {error}") from None
        if done.returncode:
            raise ProviderError(f"{self.name}: the containers of {name} can't be removed: {words_of(done.stderr, 'without a word')}")

    def kill(self, name: str) -> None:
        """End the agent, its keeper and its tasks at once, as a reclaimed machine would; its folder stays.

        The agent goes first, so that it tells nothing; tasks carry no mark but have the keeper above them, which goes last.
        """
        deadline = clock.monotonic_s() + _KILL_S
        while marked := self._marked().get(name, []):
            if self._agent_lives(name):
                _signal(marked[0], signal.SIGKILL)
            tasks = _below(marked)
            for process in tasks or marked:
                _signal(process, signal.SIGKILL)
            if clock.monotonic_s() > deadline:
                raise ProviderError(f"{self.name}: the processes of {name} do not end")
            clock.sleep_s(0.02)

    def script(self, request: MachineRequest) -> str:
        """The agent's command line and marks."""
        folder = self._folder / request.name
        marks = [f"{key}={value}" for key, value in self._environment(request).items()]
        return (
            shlex.join([*marks, *agent_arguments(self.name, request, str(folder / "token"), str(folder / "work"), self._arguments)]) + "\n"
        )


def _identity(pid: int) -> str:
    """A process's number and start (ticks since boot), which no other process has both of; only the number when it has ended."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return str(pid)
    return str(pid) if state == "Z" else f"{pid} {rest[18]}"


def _below(marked: list[psutil.Process]) -> list[psutil.Process]:
    """What the agent and its keeper have started, and what that started, without themselves."""
    found: dict[int, psutil.Process] = {}
    for process in marked:
        try:
            found |= {child.pid: child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE}
        except psutil.Error:
            continue
    own = {process.pid for process in marked}
    return [process for pid, process in found.items() if pid not in own]


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except (psutil.Error, OSError):
        return
