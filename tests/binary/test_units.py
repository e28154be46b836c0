"""The deb's units under a real systemd: process 1 of a machine of its own, with this one's file system and all changes in memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scitq
from tests.lib.onefile import ROOT

pytestmark = [
    pytest.mark.xdist_group("packages"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of one's own needs root"),
]

NEWER = "99.0.0"
HIERARCHY = Path("/sys/fs/cgroup/systemd")

# The cgroups of that systemd lie below one of ours, which is its root, so that nothing of the host's is touched.
OUTER = """
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
MACHINE = """
mount -t tmpfs -o size=1g none {work}
mkdir {work}/upper {work}/work {work}/root
root={work}/root
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
SCENARIO = """
exec 2>&1 </dev/null
until_true() { for _ in $(seq 600); do "$@" >/dev/null 2>&1 && return 0; sleep 0.1; done; echo "never true: $*"; told; return 1; }
told() { cat /var/log/scitq-*.log; systemctl --no-pager status scitq-server scitq-agent; }
pid_of() { systemctl show --property MainPID --value "$1"; }
is_new() { local pid; pid=$(pid_of $1); test "$pid" != 0 -a "$pid" != "$2"; }
has_status() { test "$(scitq task list --json | sed -n 's/.*"status": *"\\([A-Z]\\)".*/\\1/p' | head -n 1)" = "$1"; }

until_true systemctl list-units
dpkg -i /run/packages/scitq_%(old)s-1_*.deb >/run/install.log || { cat /run/install.log; exit 1; }
for unit in scitq-server scitq-agent; do
    mkdir -p /etc/systemd/system/$unit.service.d
    printf '[Service]\\nStandardError=append:/var/log/%%s.log\\n' $unit >/etc/systemd/system/$unit.service.d/log.conf
done
systemctl daemon-reload
install -d -m 0700 -o scitq -g scitq /var/cache/scitq /var/lib/scitq
runuser -u scitq -- env HOME=/var/lib/scitq SCITQ_CACHE=/var/cache/scitq \
    scitq config init --config /etc/scitq/scitq.yaml --data-dir /var/lib/scitq >/root/password
export SCITQ_SERVER=localhost:50051
systemctl enable --quiet scitq-server
systemctl start scitq-server || { told; exit 1; }
until_true scitq ping
SCITQ_TOKEN=$(scitq login --user admin --password-file /root/password --no-session)
export SCITQ_TOKEN
scitq user token create --worker >/root/worker.token
install -m 0400 -o scitq-agent /root/worker.token /etc/scitq/worker.token
echo 'SCITQ_AGENT_OPTIONS="--runtime bare"' >>/etc/default/scitq-agent
systemctl enable --quiet scitq-agent
systemctl start scitq-agent || { told; exit 1; }
command='id -un; echo x >/usr/x || echo read-only; grep NoNewPrivs /proc/self/status
while ! test -e /var/lib/scitq-agent/go; do sleep 0.1; done; echo end'
task=$(scitq task create --container bare --shell sh --command "$command" --quiet)
says() { scitq task output --id $task | grep -q "$1"; }
until_true says NoNewPrivs

server=$(pid_of scitq-server) agent=$(pid_of scitq-agent)
systemctl restart scitq-server
until_true scitq ping
is_new scitq-server $server
echo the server was started anew

server=$(pid_of scitq-server)
kill -9 $server
until_true is_new scitq-server $server
until_true scitq ping
echo the killed server came back

kill -9 $agent
until_true is_new scitq-agent $agent
echo the killed agent came back

server=$(pid_of scitq-server) agent=$(pid_of scitq-agent)
dpkg -i /run/packages/scitq_%(new)s-1_*.deb >/run/install.log || { cat /run/install.log; exit 1; }
is_new scitq-server $server
test "$(pid_of scitq-agent)" = $agent
until_true scitq ping
touch /var/lib/scitq-agent/go
scitq task wait --id $task --timeout 60s >/dev/null || { told; exit 1; }
scitq task output --id $task --stdout

dpkg -r scitq >/dev/null
test "$(systemctl is-active scitq-server scitq-agent | sort -u)" = inactive
is_gone() { test -z "$(ps -u scitq,scitq-agent -o args=)"; }
until_true is_gone
test -s /etc/scitq/scitq.yaml
echo nothing runs
"""
SAID = """\
the server was started anew
the killed server came back
the killed agent came back
scitq-agent
read-only
NoNewPrivs:	1
end
nothing runs
ended with 0
"""


@pytest.fixture(scope="module")
def debs(exe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the deb of this version and of a newer one."""
    assert exe.is_file()
    folder = tmp_path_factory.mktemp("debs")
    for version in (scitq.__version__, NEWER):
        environment = os.environ | {"SCITQ_VENV": sys.prefix, "SCITQ_PACKAGE_DIR": str(folder), "SCITQ_PACKAGE_VERSION": version}
        done = subprocess.run([ROOT / "build/packages.sh", "deb"], env=environment, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_units_start_restart_upgrade_and_stop(debs: Path, tmp_path: Path) -> None:
    if not Path("/lib/systemd/systemd").exists() or shutil.which("dpkg") is None:
        pytest.fail("systemd or dpkg is not here; on Debian: apt-get install systemd")
    names = {"work": tmp_path / "machine", "packages": debs, "cgroups": tmp_path / "cgroups", "name": f"scitq-units-{os.getpid()}"}
    names["work"].mkdir()
    scenario = SCENARIO % {"old": scitq.__version__, "new": NEWER}
    unshare = ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child", "sh", "-ec"]
    try:
        done = subprocess.run(
            [*unshare, OUTER.format(**names), "sh", MACHINE.format(**names), scenario],
            capture_output=True,
            text=True,
            timeout=280,
            stdin=subprocess.DEVNULL,
        )
    finally:
        for folder in (HIERARCHY if HIERARCHY.is_dir() else HIERARCHY.parent).glob(f"**/{names['name']}"):
            for path in [*sorted(folder.rglob("*/"), reverse=True), folder]:
                with contextlib.suppress(OSError):
                    path.rmdir()
    # the way in which such a machine ends has no status of its own
    assert done.stdout.endswith(SAID), done.stdout + done.stderr
