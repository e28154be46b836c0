"""The deb's units under a real systemd: process 1 of a machine of its own, with this one's file system and all changes in memory."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import scitq
from tests.binary.conftest import NEWER
from tests.lib import machine
from tests.lib.podman import CONTAINERS_CONF, open_way
from tests.lib.services import DockerService

pytestmark = [
    pytest.mark.xdist_group("packages"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of one's own needs root"),
]

SCENARIO = """
install_package %(old)s
start_server
start_agent "--runtime bare"
command='id -un; echo x >/usr/x || echo read-only
while ! test -e /var/lib/scitq-agent/go; do sleep 0.1; done; echo end'
task=$(scitq task create --container bare --shell sh --command "$command" --quiet)
until_true says $task read-only

server=$(pid_of scitq-server) agent=$(pid_of scitq-agent)
grep NoNewPrivs /proc/$server/status
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
install_package %(new)s
is_new scitq-server $server
test "$(pid_of scitq-agent)" = $agent
until_true scitq ping
touch /var/lib/scitq-agent/go
succeeds $task
scitq task output --id $task --stdout

dpkg -r scitq >/dev/null
test "$(systemctl is-active scitq-server scitq-agent | sort -u)" = inactive
is_gone() { test -z "$(ps -u scitq,scitq-agent -o args=)"; }
until_true is_gone
test -s /etc/scitq/scitq.yaml
echo nothing runs
"""
SAID = """\
NoNewPrivs:	1
the server was started anew
the killed server came back
the killed agent came back
scitq-agent
read-only
end
nothing runs
ended with 0
"""

CONTAINERS = """
install_package %(old)s
start_server

mkdir -p /etc/containers /dev/net
cp %(shared)s/containers.conf /etc/containers/
printf '[storage]\\ndriver = "vfs"\\n' >/etc/containers/storage.conf
mknod -m 0666 /dev/net/tun c 10 200
start_agent "--runtime podman --concurrency 2"
is_told() { grep -q 'newuidmap.*Containers under the unit' /var/log/scitq-agent.log; }
until_true is_told
install -D -m 0644 /usr/share/scitq/setuid.conf /etc/systemd/system/scitq-agent.service.d/setuid.conf && systemctl daemon-reload
systemctl reset-failed scitq-agent || :
systemctl restart scitq-agent
podman_of_the_worker() { runuser -u scitq-agent -- env -C / HOME=/var/lib/scitq-agent XDG_RUNTIME_DIR=/run/scitq-agent podman "$@"; }
is_ready() { scitq worker list | grep -qw ready; }
until_true is_ready
podman_of_the_worker load --quiet <%(shared)s/alpine.tar >/dev/null

runs() { scitq task create --container alpine --shell sh --command "$1" --quiet; }
task=$(runs 'id -u; chown 7:7 /tmp; stat -c %%u /tmp; ls /sys/class/net | grep -v lo; echo x >/usr/x; echo done')
succeeds $task
scitq task output --id $task --stdout

task=$(runs 'echo begun; while ! test -e /output/go; do sleep 0.1; done; echo gone on')
until_true says $task begun
services() { ps -u scitq-agent -o args= | grep '[s]ystem service' | sort -u; }
for _ in 1 2; do
    agent=$(pid_of scitq-agent) before=$(services)
    kill -9 $agent
    until_true is_new scitq-agent $agent
    is_one() { test "$(services | wc -l)" = 1 -a "$(services)" != "$before"; }
    until_true is_one
done
echo one service of podman
touch /var/lib/scitq-agent/tasks/$task-1/output/go
succeeds $task
scitq task output --id $task --stdout

task=$(runs 'echo begun; sleep 1000')
until_true says $task begun
systemctl stop scitq-agent
is_gone() { test -z "$(ps -u scitq-agent -o args=)" -a -z "$(cat /sys/fs/cgroup{,/systemd}/system.slice/scitq-agent.service/cgroup.procs)"; }
until_true is_gone
echo nothing is left

rm /etc/systemd/system/scitq-agent.service.d/setuid.conf
printf '[Service]\\nReadWritePaths=%%s\\n' %(shared)s/work >/etc/systemd/system/scitq-agent.service.d/work.conf
systemctl daemon-reload
install -d -m 0711 -o scitq-agent %(shared)s/work
printf 'SCITQ_AGENT_OPTIONS="--runtime docker"\nSCITQ_AGENT_WORK_DIR=%(shared)s/work\n' >>/etc/default/scitq-agent
systemctl start scitq-agent
task=$(scitq task create --container alpine --shell sh --command 'echo by docker; echo x >/output/x' --quiet)
succeeds $task
scitq task output --id $task --stdout
grep NoNewPrivs /proc/$(pid_of scitq-agent)/status
systemctl stop scitq-agent
"""
SAID_OF_CONTAINERS = """\
0
7
eth0
done
one service of podman
begun
gone on
nothing is left
by docker
NoNewPrivs:	1
ended with 0
"""


def test_units_start_restart_upgrade_and_stop(packages: Path, tmp_path: Path) -> None:
    said = machine.run(SCENARIO % {"old": scitq.__version__, "new": NEWER}, tmp_path, packages)
    assert said.endswith(SAID), said


@pytest.mark.docker
def test_tasks_in_containers_of_podman_and_docker_under_the_workers_unit(
    packages: Path, tmp_path: Path, docker_service: DockerService
) -> None:
    """Docker's engine is this machine's: it must see the worker's folder at the same place."""
    shared = tmp_path / "shared"
    shared.mkdir()
    open_way(shared)
    docker_service.command("save", "-o", str(shared / "alpine.tar"), "alpine:latest")
    (shared / "alpine.tar").chmod(0o644)
    (shared / "containers.conf").write_text(CONTAINERS_CONF)
    said = machine.run(CONTAINERS % {"old": scitq.__version__, "shared": shared}, tmp_path, packages, shared, Path("/run/docker.sock"))
    assert said.endswith(SAID_OF_CONTAINERS), said
