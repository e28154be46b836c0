"""The provider `slurm`: workers are pilot jobs that run this same executable as `scitq agent` (docs/providers/slurm.md).

Only the plain text forms of sinfo and squeue are read: `--json` needs a plug-in that many sites don't build, and its
form changes with every release.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from scitq.broker.providers.base import (
    FlavorUnusableError,
    Machine,
    MachineRequest,
    MachineState,
    ProviderContext,
    QuotaError,
    Settings,
    agent_arguments,
    words_of,
)
from scitq.errors import ProviderError
from scitq.model.flavor import Flavor
from scitq.util import files, proc, units

_STATES = {
    "PENDING": MachineState.QUEUED,
    "REQUEUED": MachineState.QUEUED,
    "REQUEUE_HOLD": MachineState.QUEUED,
    "REQUEUE_FED": MachineState.QUEUED,
    "SPECIAL_EXIT": MachineState.QUEUED,
    "RESV_DEL_HOLD": MachineState.QUEUED,
    "CONFIGURING": MachineState.STARTING,
    "RUNNING": MachineState.RUNNING,
    "RESIZING": MachineState.RUNNING,
    "SUSPENDED": MachineState.RUNNING,
    "STOPPED": MachineState.RUNNING,
    "SIGNALING": MachineState.RUNNING,
    "STAGE_OUT": MachineState.ENDING,
    "COMPLETING": MachineState.ENDING,
}
_EVICTED = frozenset({"PREEMPTED", "NODE_FAIL", "REVOKED", "BOOT_FAIL", "TIMEOUT", "DEADLINE", "CANCELLED"})
"""Taken away by Slurm or by somebody: what runs there did not end it."""
_HOPELESS = frozenset(
    {"PartitionConfig", "PartitionTimeLimit", "PartitionNodeLimit", "BadConstraints", "AccountNotAllowed", "InvalidAccount", "InvalidQOS",
     "QOSNotAllowed", "QOSMaxWallDurationPerJobLimit", "QOSMaxCpuPerJobLimit", "AssocMaxWallDurationPerJobLimit", "AssocMaxCpuPerJobLimit"}
)  # fmt: skip
"""Why jobs wait that Slurm took and can't start unless somebody changes its configuration."""
_NEVER = re.compile(
    r"invalid (partition|account|qos|feature|generic resource)|requested node configuration is not available", re.IGNORECASE
)
_FULL = re.compile(r"limit|quota|QOSMax|AssocMax|AssocGrp|too many jobs|job violates accounting", re.IGNORECASE)
_PASSED_ON = ("PATH", "HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "TZ", "PYTHONPATH", "SLURM_CONF")
"""Of the server's environment; the rest may hold secrets."""
_CALL_S = 60.0
_REGION = "cluster"
_SPENT_S = 80.0
"""Of an allocation's time no task gets so much: its agent starts, and ends itself before it is cut off."""

_SCRIPT = """\
#!/bin/sh
{directives}
export SCITQ_SERVER_KEY={key}
left=$(squeue -h -j "$SLURM_JOB_ID" -o %L 2>/dev/null | awk -F '[-:]' '
    /^[0-9:-]+$/ {{ s = 0; split("1 60 3600 86400", unit, " "); for (i = 0; i < NF; i++) s += unit[i + 1] * $(NF - i); print s }}')
{setup}work={work}
mkdir -p "$work" || exit 1
{agent} &
agent=$!
trap 'kill -TERM $agent 2>/dev/null' TERM INT
wait $agent; status=$?
while kill -0 $agent 2>/dev/null; do wait $agent; status=$?; done
rm -rf "$work"
exit $status
"""


class SlurmProvider:
    """Pilot jobs on one cluster, as one user. Options: docs/providers/slurm.md."""

    def __init__(self, name: str, options: Mapping[str, Any], context: ProviderContext) -> None:
        settings = Settings(name, options)
        self.name = name
        self.default_region = settings.text("region", _REGION)
        self.update_period_s = units.parse_duration_s(settings.text("update_period", "10m"))
        self._bin = settings.text("bin")
        conf = settings.text("conf")
        self._env = {"SLURM_CONF": conf} if conf else {}
        self._executable = settings.text("scitq")
        self._folder = Path(settings.text("folder") or context.folder)
        self._work_dir = settings.text("work_dir")
        time = settings.text("time", "24h")
        self._time_s = units.parse_duration_s(time) if time else None
        self._account = settings.text("account")
        self._qos = settings.text("qos")
        self._partitions = settings.texts("partitions")
        self._sbatch = settings.texts("sbatch")
        self._setup = settings.text("setup")
        self._arguments = settings.texts("arguments")
        self._environment = settings.texts("environment")
        self._costs = settings.numbers_by_name("cost")
        self._evictions = settings.numbers_by_name("eviction")
        self._sizes = settings.sections("flavors")
        settings.end()
        self._mark = context.mark
        self._known: dict[str, tuple[str, dict[str, str], float | None]] = {}

    def _call(self, program: str, *arguments: str, data: bytes | None = None) -> bytes:
        argv = [f"{self._bin}/{program}" if self._bin else program, *arguments]
        try:
            done = proc.run(argv, timeout_s=_CALL_S, env=self._env, data=data)
        except subprocess.TimeoutExpired:
            raise ProviderError(f"{self.name}: {program} gave no answer within {_CALL_S:.0f} s") from None
        except OSError as error:
            raise ProviderError(f"{self.name}: {program} can't be started: {error.strerror or error}") from None
        if done.returncode:
            words = words_of(done.stderr, f"{program} ended with status {done.returncode}")
            kind = FlavorUnusableError if _NEVER.search(words) else QuotaError if _FULL.search(words) else ProviderError
            raise kind(f"{self.name}: {words}")
        if b"Unable to contact" in done.stderr:
            raise ProviderError(f"{self.name}: {words_of(done.stderr, '')}")
        return done.stdout

    def check(self) -> str:
        """The controller answers."""
        files.make_private_folder(self._folder)
        ping = self._call("scontrol", "ping").decode(errors="replace").strip()
        if " UP" not in ping:
            raise ProviderError(f"{self.name}: {ping}")
        return ping.splitlines()[0]

    def list_flavors(self) -> list[Flavor]:
        """A flavor for each partition and node type, named as the partition when it has one type only; or those of the configuration."""
        rows = self._call("sinfo", "-h", "-a", "-N", "-o", "%R|%c|%m|%d|%G|%T|%l").decode(errors="replace").splitlines()
        types: dict[str, set[tuple[float, float, float, str]]] = {}
        longest: dict[str, float | None] = {}
        for row in rows:
            partition, cpus, memory, disk, gres, state, limit = row.split("|")
            if (self._partitions and partition not in self._partitions) or state.startswith(("down", "drained", "unknown")):
                continue
            limits = [limit_s for limit_s in (self._time_s, _seconds(limit)) if limit_s]
            longest[partition] = min(limits, default=None)
            types.setdefault(partition, set()).add((_figure(cpus), _figure(memory), _figure(disk), "" if gres == "(null)" else gres))
        flavors = []
        known: dict[str, tuple[str, dict[str, str], float | None]] = {}
        for partition, kinds in sorted(types.items()):
            for cpus_n, memory_mib, disk_mib, gres in sorted(kinds):
                name = (
                    partition if len(kinds) == 1 else f"{partition}-{cpus_n:g}c-{memory_mib / 1024:.0f}g{'-gpu' if 'gpu' in gres else ''}"
                )
                flavors.append(self._flavor(name, partition, cpus_n, memory_mib / 1024, disk_mib * 1.048576e-3, gres, longest[partition]))
                whole = {"nodes": "1", "ntasks": "1", "cpus-per-task": f"{cpus_n:.0f}", "mem": "0"}
                whole |= {"gres": f"gpu:{flavors[-1].gpus}"} if flavors[-1].gpus else {}
                known[name] = (partition, whole, longest[partition])
        for name, size in self._sizes.items():
            taken = Settings(f"{self.name}.flavors.{name}", size)
            partition = taken.text("partition", self._partitions[0] if self._partitions else "")
            cpus_n, mem_gib, gres = taken.number("cpus", 1), taken.number("mem", 0), taken.text("gres")
            disk_gb = taken.number("disk", 0)
            wanted = {"nodes": "1", "ntasks": "1", "cpus-per-task": f"{cpus_n:.0f}"}
            wanted |= {"mem": f"{mem_gib * 1024:.0f}M"} if mem_gib else {}
            wanted |= {"gres": gres} if gres else {}
            taken.end()
            if partition not in types:
                continue
            flavors.append(self._flavor(name, partition, cpus_n, mem_gib, disk_gb, gres, longest[partition]))
            known[name] = (partition, wanted, longest[partition])
        self._known = known
        return flavors

    def _flavor(self, name: str, partition: str, cpus: float, mem_gib: float, disk_gb: float, gres: str, longest_s: float | None) -> Flavor:
        gpus = [part.partition("(")[0].split(":") for part in gres.split(",") if part.startswith("gpu")]
        count = sum(int(part[-1]) if part[-1].isdigit() else 1 for part in gpus)
        models = sorted({part[1] for part in gpus if len(part) > 2 or (len(part) == 2 and not part[1].isdigit())})
        return Flavor(
            provider=self.name,
            region=self.default_region,
            name=name,
            cpus=cpus,
            mem_gib=round(mem_gib, 2),
            disk_gb=round(disk_gb, 1),
            gpus=count,
            gpu=" ".join(models) or ("gpu" if count else ""),
            eviction_percent=_by_name(self._evictions, name, partition, 0.0),
            cost=_by_name(self._costs, name, partition, 0.0),
            longest_s=None if longest_s is None else max(0.0, longest_s - _SPENT_S),
        )

    def _directives(self, request: MachineRequest) -> list[str]:
        if request.flavor.name not in self._known:
            self.list_flavors()
        if request.flavor.name not in self._known:
            raise FlavorUnusableError(f"{self.name}: no partition gives the flavor {request.flavor.name} now")
        partition, wanted, longest_s = self._known[request.flavor.name]
        wanted = {"job-name": request.name, "partition": partition, "dependency": "singleton", **wanted}
        limit = request.time_limit_s or (longest_s if self._time_s else 0)
        if limit:
            minutes = max(1, round(limit / 60))
            wanted["time"] = f"{minutes // 1440}-{minutes % 1440 // 60:02d}:{minutes % 60:02d}:00"
        wanted |= {"account": self._account} if self._account else {}
        wanted |= {"qos": self._qos} if self._qos else {}
        wanted |= {"output": f"{self._folder}/{request.name}.log", "open-mode": "append"}
        wanted |= {"export": ",".join([*_PASSED_ON, *self._environment])}
        return ["--no-requeue", *[f"--{key}={value}" for key, value in wanted.items()], *self._sbatch]

    def script(self, request: MachineRequest) -> str:
        """The batch script."""
        bootstrap = request.bootstrap
        argv = agent_arguments(self.name, request, str(self._token_file(request.name)), "WORK", self._arguments)
        if self._executable:
            argv = [self._executable, *argv[len(bootstrap.executable) :]]
        agent = shlex.join(argv).replace(" WORK", ' "$work"', 1) + ' ${left:+--time-left "$left"}'
        work = shlex.quote(f"{self._work_dir}/{request.name}") if self._work_dir else f'"${{TMPDIR:-/tmp}}/{request.name}"'
        return _SCRIPT.format(
            directives="\n".join(f"#SBATCH {line}" for line in self._directives(request)),
            key=shlex.quote(bootstrap.server_key),
            setup=f"{self._setup.rstrip()}\n" if self._setup else "",
            work=work,
            agent=agent,
        )

    def _token_file(self, name: str) -> Path:
        return self._folder / f"{name}.token"

    def create(self, request: MachineRequest) -> Machine:
        """Submit the pilot job, unless one of this name is queued or runs; `singleton` keeps a doubled one from starting."""
        for machine in self.find({request.name}):
            if machine.state is not MachineState.GONE:
                return machine
        script = self.script(request)
        try:
            files.make_private_folder(self._folder)
            files.write_atomically(self._token_file(request.name), request.bootstrap.token.encode(), 0o600)
        except OSError as error:
            raise ProviderError(f"{self.name}: {error}") from None
        answer = self._call("sbatch", "--parsable", data=script.encode()).decode(errors="replace")
        return Machine(name=request.name, state=MachineState.QUEUED, provider_id=answer.strip().partition(";")[0])

    def find(self, names: Collection[str] | None = None) -> list[Machine]:
        """What squeue says of our jobs; a job that ended is shown as gone, with its state as message, while Slurm remembers it."""
        selection = [f"--name={','.join(sorted(names))}"] if names is not None and len(names) <= 200 else []
        if names is not None and not names:
            return []
        rows = self._call("squeue", "-h", "--me", "-t", "all", "-o", "%i|%j|%T|%r|%L|%N", *selection).decode(errors="replace").splitlines()
        found: dict[str, Machine] = {}
        for row in rows:
            job_id, name, state, reason, left, node = row.split("|", 5)
            if not name.startswith(self._mark) or (names is not None and name not in names):
                continue
            message = state.lower() + (f" ({reason})" if reason not in {"None", ""} else "")
            if state not in _STATES and state not in {"COMPLETED", "CANCELLED"}:
                message += self._last_words(name)
            machine = Machine(
                name=name,
                state=_STATES.get(state, MachineState.GONE),
                provider_id=job_id,
                addresses=(node,) if node and node != "n/a" else (),
                message=message,
                is_evicted=state in _EVICTED,
                seconds_left=_seconds(left) if state == "RUNNING" else None,
                is_hopeless=state == "PENDING" and reason in _HOPELESS,
            )
            other = found.get(name)
            if other is None or other.state is MachineState.GONE or machine.state is MachineState.RUNNING:
                found[name] = machine
        return [found[name] for name in sorted(found)]

    def _last_words(self, name: str) -> str:
        try:
            with (self._folder / f"{name}.log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 2000))
                words = words_of(log.read(), "")
        except OSError:
            return ""
        return f": {words}" if words else ""

    def delete(self, name: str) -> None:
        """Cancel every job of this name, queued or running, and remove its files."""
        if any(machine.state is not MachineState.GONE for machine in self.find({name})):
            try:
                self._call("scancel", "--me", f"--name={name}")
            except ProviderError as error:
                if "nvalid job id" not in error.message:
                    raise
        for file in (self._token_file(name), self._folder / f"{name}.log"):
            file.unlink(missing_ok=True)


def _figure(text: str) -> float:
    match = re.match(r"[0-9.]+", text)
    return float(match[0]) if match else 0.0


def _seconds(text: str) -> float | None:
    """A duration as Slurm writes it (`30:00`, `1-12:00:00`); None when it is no end, or no duration."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text.strip())
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _by_name(figures: Mapping[str, float], name: str, partition: str, default: float) -> float:
    for key in (name, partition, "*"):
        if key in figures:
            return figures[key]
    return default
