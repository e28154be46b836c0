"""scitq of people without root, in a machine with systemd: `systemd --user` units as docs/install.md has them, and cron's lines."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.lib import machine
from tests.lib.onefile import ROOT
from tests.lib.podman import open_way

pytestmark = [
    pytest.mark.xdist_group("packages"),
    pytest.mark.skipif(os.geteuid() != 0, reason="a machine of one's own needs root"),
]

USER = """
new_user() { # new_user NAME
    useradd --create-home --shell /bin/bash $1
    install -D -m 0755 -o $1 %(shared)s/scitq /home/$1/.local/bin/scitq
    chown -R $1: /home/$1
}
by() { # by NAME COMMANDS
    runuser -u $1 -- env -i HOME=/home/$1 USER=$1 PATH=/home/$1/.local/bin:/usr/bin:/bin XDG_RUNTIME_DIR=$runtime \\
        SCITQ_TOKEN=${token:-} bash -euc "cd; $2"
}
logs_in() { # logs_in NAME
    token=$(by $1 'scitq login --user admin --password-file ~/.local/share/scitq/admin-password --no-session 2>/dev/null')
}
does_a_task() { by $1 'scitq task wait --id $(scitq task create --container bare --command "id -un" --quiet) --timeout 60s >/dev/null'; }
has_worker() { by $1 'scitq worker list | grep -qw ready'; }
told() { cat /home/*/.local/share/scitq/*.log /home/*/.local/share/scitq/server/*.log; ps -eo user,pid,ppid,args; }
"""

UNITS = (
    USER
    + """
told() { by ann 'systemctl --user --no-pager status scitq-server scitq-agent'; cat /home/ann/*.log; ps -eo user,pid,ppid,args; }
new_user ann
cp -r %(shared)s/packaging /home/ann/
runtime=/run/user/$(id -u ann)
for unit in scitq-server scitq-agent; do
    install -D -o ann /dev/stdin /home/ann/.config/systemd/user/$unit.service.d/log.conf <<END
[Service]
RestartSec=0.2
StandardError=append:/home/ann/$unit.log
END
done
chown -R ann: /home/ann
systemctl start dbus systemd-logind
loginctl enable-linger ann
until_true by ann 'systemctl --user is-system-running --wait'
by ann "$(sed 's/^loginctl.*//' %(shared)s/commands)" 2>/dev/null
until_true by ann 'scitq ping'
logs_in ann
until_true has_worker ann
does_a_task ann
task=$(by ann "scitq task create --container bare --shell sh --command 'while ! test -e /home/ann/go; do sleep 0.1; done; id -un' --quiet")
is_running() { by ann "scitq task list --status R --json | grep -q '\\"id\\": *$task'"; }
until_true is_running

user_pid() { by ann "systemctl --user show --property MainPID --value $1"; }
is_another() { local pid; pid=$(user_pid $1); test "$pid" != 0 -a "$pid" != "$2"; }
for unit in scitq-server scitq-agent; do
    pid=$(user_pid $unit)
    kill -9 $pid
    until_true is_another $unit $pid
done
until_true by ann 'scitq ping'
pid=$(user_pid scitq-server)
by ann 'systemctl --user restart scitq-server'
is_another scitq-server $pid
until_true by ann 'scitq ping'
by ann 'touch go'
by ann "scitq task wait --id $task --timeout 60s" >/dev/null
by ann "scitq task output --id $task --stdout"
echo killed and started again

by ann 'systemctl --user stop scitq-agent scitq-server'
is_gone() { test -z "$(ps -u ann -o args= | grep -vE 'systemd --user|sd-pam|dbus-daemon|^ps ')"; }
until_true is_gone
test -z "$(ls $runtime/scitq/servers)"
echo nothing is left
"""
)
SAID_OF_UNITS = """\
ann
killed and started again
nothing is left
ended with 0
"""

CRON = (
    USER
    + """
told() { tail -n 50 /home/*/.local/share/scitq/*.log /home/*/.local/share/scitq/server/*.log; ps -eo user,pid,ppid,args; }
runtime=
for name in bob eve; do # both at once, each with a server of their own
    new_user $name
    sed 's/sleep 20/sleep 0/' %(shared)s/packaging/scitq.crontab | crontab -u $name -
done
boots() { # then the servers and workers of both come up and work
    rm -f /run/crond.reboot
    systemctl start cron
    for name in bob eve; do
        token=
        until_true by $name 'scitq ping'
        logs_in $name
        until_true has_worker $name
        does_a_task $name
    done
}
boots
echo two users have a server each

systemctl stop cron
for name in bob eve; do
    is_gone() { kill -9 $(ps -u $name -o pid=); test -z "$(ps -u $name -o pid=)"; }
    until_true is_gone
done
boots
echo again after the power was cut
systemctl stop cron
by eve 'scitq stop --quiet'
echo stopped
"""
)
SAID_OF_CRON = """\
two users have a server each
again after the power was cut
stopped
ended with 0
"""


@pytest.fixture
def shared(exe: Path, tmp_path: Path) -> Path:
    """What the machine finds: the one file, packaging/, and the commands that docs/install.md prints."""
    folder = tmp_path / "shared"
    folder.mkdir()
    shutil.copy(exe, folder / "scitq")
    shutil.copytree(ROOT / "packaging", folder / "packaging")
    text = (ROOT / "docs/install.md").read_text().partition("## Without root")[2]
    (folder / "commands").write_text(text.split("```")[1])
    open_way(folder)
    return folder


def test_units_of_a_user_do_a_task_come_back_and_leave_nothing(shared: Path, tmp_path: Path) -> None:
    said = machine.run(UNITS % {"shared": shared}, tmp_path, shared, shared)
    assert said.endswith(SAID_OF_UNITS), said


def test_cron_starts_server_and_worker_of_two_users_also_after_a_power_cut(shared: Path, tmp_path: Path) -> None:
    if not Path("/usr/sbin/cron").exists():
        pytest.fail("cron is not here; on Debian: apt-get install cron")
    said = machine.run(CRON % {"shared": shared}, tmp_path, shared, shared)
    assert said.endswith(SAID_OF_CRON), said
