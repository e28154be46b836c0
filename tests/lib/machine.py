"""A machine with systemd as process 1: this one's file system with all changes in memory, its own processes, network and cgroups."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

_HIERARCHY = Path("/sys/fs/cgroup/systemd")

# The cgroups of that systemd lie below one of ours, which is its root, so that nothing of the host's is touched.
_OUTER = """
mount --make-rprivate /
mkdir -p {cgroups}
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then kind='cgroup2 cgroup2' options=rw; else kind='cgroup cgroup' options=none,name=systemd; fi
mount -t $kind -o $options {cgroups}
mkdir {cgroups}/{name}
echo 0 >{cgroups}/{name}/cgroup.procs
umount {cgroups}
export kind options
exec unshare --cgroup sh -ec "$1" sh "$2"
"""
_MACHINE = """
mount -t tmpfs -o size=2g none {work}
mkdir {work}/upper {work}/work {work}/root
root={work}/root
# users that other tests make meanwhile are not this machine's
mkdir {work}/upper/etc
for name in passwd shadow group gshadow subuid subgid; do cp -p /etc/$name {work}/upper/etc/; done
mount -t overlay -o lowerdir=/,upperdir={work}/upper,workdir={work}/work none $root
mount -t proc proc $root/proc
mount -t sysfs -o ro none $root/sys
if [ "$options" = rw ]; then mount -t $kind $root/sys/fs/cgroup
else
    mount -t tmpfs -o mode=755 none $root/sys/fs/cgroup
    mkdir $root/sys/fs/cgroup/systemd
    mount -t $kind -o $options $root/sys/fs/cgroup/systemd
fi
mount -t tmpfs -o mode=755 none $root/dev
for name in null zero full random urandom tty; do touch $root/dev/$name; mount --bind /dev/$name $root/dev/$name; done
ln -s /proc/self/fd $root/dev/fd
ln -s pts/ptmx $root/dev/ptmx
mkdir $root/dev/pts $root/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 none $root/dev/pts
mount -t tmpfs none $root/dev/shm
mount -t tmpfs -o mode=755 none $root/run
mkdir $root/run/packages
mount --bind {packages} $root/run/packages
{more}
ip link set lo up
rm -rf $root/etc/systemd/system/*.wants
for name in tmpfiles-setup journal-catalog-update hwdb-update udevd; do ln -sf /dev/null $root/etc/systemd/system/systemd-$name.service; done
printf '[Unit]\\nDescription=nothing\\n' >$root/etc/systemd/system/default.target
printf %s "$1" >$root/scenario
# systemd makes mount namespaces for its units, which it can't in a chroot
cd $root
mkdir old
pivot_root . old
umount -l /old
exec chroot . /usr/bin/env -i container=scitq PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root bash -c '
    (timeout 240 bash -eu /scenario; echo "ended with $?"; kill -s RTMIN+14 1) &
    exec /lib/systemd/systemd --system --log-target=null --unit=default.target --show-status=no'
"""

# What scenarios use.
_WORDS = """
exec 2>&1 </dev/null
until_true() {
    local end=$((SECONDS + 60))
    while test $SECONDS -lt $end; do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done
    echo "never true: $*"
    return 1
}
told() { cat /var/log/scitq-*.log; systemctl --no-pager status scitq-server scitq-agent; ps -eo user,pid,ppid,args; }
pid_of() { systemctl show --property MainPID --value "$1"; }
is_new() { local pid; pid=$(pid_of $1); test "$pid" != 0 -a "$pid" != "$2"; }
says() { scitq task output --id $1 | grep -q "$2"; }
succeeds() { scitq task wait --id $1 --timeout 60s >/dev/null || { scitq task output --id $1; return 1; }; }
install_package() { # install_package VERSION
    dpkg -i /run/packages/scitq_$1-1_*.deb >/run/install.log || { cat /run/install.log; exit 1; }
}
start_server() { # as docs/install.md has it; then this shell is its administrator
    for unit in scitq-server scitq-agent; do
        mkdir -p /etc/systemd/system/$unit.service.d
        printf '[Service]\\nRestartSec=0.2\\nStandardError=append:/var/log/%s.log\\n' $unit >/etc/systemd/system/$unit.service.d/log.conf
    done
    systemctl daemon-reload
    install -d -m 0700 -o scitq -g scitq /var/cache/scitq /var/lib/scitq
    runuser -u scitq -- env HOME=/var/lib/scitq SCITQ_CACHE=/var/cache/scitq \\
        scitq config init --config /etc/scitq/scitq.yaml --data-dir /var/lib/scitq >/root/password
    export SCITQ_SERVER=localhost:50051
    systemctl enable --quiet scitq-server
    systemctl start scitq-server
    until_true scitq ping
    SCITQ_TOKEN=$(scitq login --user admin --password-file /root/password --no-session)
    export SCITQ_TOKEN
}
start_agent() { # start_agent OPTIONS
    scitq user token create --worker >/root/worker.token
    install -m 0400 -o scitq-agent /root/worker.token /etc/scitq/worker.token
    echo "SCITQ_AGENT_OPTIONS='$1'" >>/etc/default/scitq-agent
    systemctl enable --quiet scitq-agent
    systemctl start scitq-agent
}
set -E
trap told ERR
until_true systemctl list-units
"""


def run(scenario: str, folder: Path, packages: Path, *shared: Path) -> str:
    """What `scenario` says, a bash script run as root there. packages: what it finds as /run/packages; shared: what is there as here."""
    if not Path("/lib/systemd/systemd").exists() or shutil.which("dpkg") is None:
        pytest.fail("systemd or dpkg is not here; on Debian: apt-get install systemd")
    more = []
    for path in shared:
        make = f"mkdir -p $root{path}" if path.is_dir() else f"mkdir -p $root{path.parent}; touch $root{path}"
        more.append(f"{make}; mount --bind {path} $root{path}")
    names = {"work": folder / "machine", "packages": packages, "cgroups": folder / "cgroups", "name": f"scitq-units-{os.getpid()}"}
    names["work"].mkdir()
    unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-ec"]
    try:
        done = subprocess.run(
            [*unshare, _OUTER.format(**names), "sh", _MACHINE.format(**names, more="\n".join(more)), _WORDS + scenario],
            capture_output=True,
            text=True,
            timeout=280,
            stdin=subprocess.DEVNULL,
        )
    finally:
        for cgroup in (_HIERARCHY if _HIERARCHY.is_dir() else _HIERARCHY.parent).glob(f"**/{names['name']}"):
            for path in [*sorted(cgroup.rglob("*/"), reverse=True), cgroup]:
                with contextlib.suppress(OSError):
                    path.rmdir()
    # the way in which such a machine ends has no status of its own
    return done.stdout + done.stderr
