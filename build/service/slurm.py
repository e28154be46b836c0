"""A real Slurm of one node on loopback: munged, slurmctld, slurmd, with a configuration of our own."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import zlib
from pathlib import Path
from typing import Any

from service.common import CACHE, Processes, ServiceError, debian_packages, folder, free_port, have, program, tail

MUNGE = Path("/run") / f"scitq-munge-{zlib.crc32(str(CACHE).encode()):08x}"
"""Short, and of this clone alone."""
CONF = """\
ClusterName=local
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ctld}
SlurmdPort={slurmd}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={munge}
CredType=cred/munge
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=1000,bf_interval=1
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={where}/state
SlurmdSpoolDir={where}/spool
SlurmctldPidFile={where}/slurmctld.pid
SlurmdPidFile={where}/slurmd.pid
SlurmctldLogFile={where}/slurmctld.log
SlurmdLogFile={where}/slurmd.log
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={where}/jobcomp.txt
MaxJobCount=20000
MaxArraySize=10001
MinJobAge=300
KillWait=2
NodeName={node} NodeAddr=127.0.0.1 CPUs=8 RealMemory=8000 State=UNKNOWN
PartitionName=main Nodes={node} Default=YES MaxTime=INFINITE State=UP
"""


def slurm() -> tuple[dict[str, Any], Processes]:
    """Start the three daemons; ready when sinfo shows the node idle."""
    if os.geteuid() != 0:
        raise ServiceError("a Slurm for the tests is started as root only (munge changes its user)")
    if not all(have(name) for name in ("slurmctld", "slurmd", "munged", "sbatch")):
        debian_packages("slurm-wlm", "slurm-client", "munge")
    where = folder("slurm")
    for part in ("state", "spool"):
        (where / part).mkdir()
    processes = Processes("slurm", where)
    munge = _munge(processes)
    node = socket.gethostname().partition(".")[0]
    conf = where / "slurm.conf"
    conf.write_text(CONF.format(node=node, where=where, munge=munge, ctld=free_port(), slurmd=free_port()))
    env = {"SLURM_CONF": str(conf)}
    processes.start([program("slurmctld"), "-D", "-f", conf], name="slurmctld-start", env=env)
    processes.start([program("slurmd"), "-D", "-f", conf], name="slurmd-start", env=env)

    def idle() -> bool:
        shown = subprocess.run(
            [program("sinfo"), "-h", "-o", "%T"], env=os.environ | env, capture_output=True, text=True, timeout=60, check=False
        )
        return shown.returncode == 0 and shown.stdout.strip() == "idle"

    try:
        processes.until(idle, timeout_s=90, log=where / "slurmctld.log")
    except ServiceError as failure:
        raise ServiceError(f"{failure}\nslurmd:\n{tail(where / 'slurmd.log')}") from None
    return {"conf": str(conf), "node": node, "partition": "main"}, processes


def _munge(processes: Processes) -> Path:
    """Start munged as its own user, its socket and key where that user may write and a path is short."""
    try:
        user = pwd.getpwnam("munge")
    except KeyError:
        raise ServiceError("no user `munge`: is the package munge installed?") from None
    home = MUNGE
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o755)
    os.chown(home, user.pw_uid, user.pw_gid)
    key = home / "key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    os.chown(key, user.pw_uid, user.pw_gid)
    socket_path = home / "socket"
    munged = [
        program("munged"), "--foreground", "--force", f"--socket={socket_path}", f"--key-file={key}", f"--pid-file={home / 'pid'}",
        f"--log-file={home / 'log'}", f"--seed-file={home / 'seed'}",
    ]  # fmt: skip
    processes.start([program("setpriv"), "--reuid=munge", "--regid=munge", "--clear-groups", *munged], name="munged")
    processes.until(socket_path.is_socket, timeout_s=30)
    return socket_path


def clean() -> None:
    shutil.rmtree(MUNGE, ignore_errors=True)
