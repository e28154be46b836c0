#!/bin/sh
# After installing or upgrading, on Debian and on RPM systems. Nothing is started that was not running before.
set -e
have() { command -v "$1" >/dev/null 2>&1; }
user() { # user NAME HOME
    getent group "$1" >/dev/null || groupadd --system "$1"
    getent passwd "$1" >/dev/null || useradd --system --gid "$1" --home-dir "$2" --no-create-home --shell /usr/sbin/nologin "$1"
}

if have systemd-sysusers; then systemd-sysusers scitq.conf
else
    user scitq /var/lib/scitq
    user scitq-agent /var/lib/scitq-agent
    getent group docker >/dev/null || groupadd --system docker
    usermod --append --groups docker scitq-agent
fi
# The worker's podman gives these numbers to the users in its containers.
if [ -f /etc/subuid ] && [ -f /etc/subgid ] && ! grep -q '^scitq-agent:' /etc/subuid; then
    first=$(awk -F: '$2 + $3 > first { first = $2 + $3 } END { print (first > 100000 ? first : 100000) }' /etc/subuid /etc/subgid)
    usermod --add-subuids "$first-$((first + 65535))" --add-subgids "$first-$((first + 65535))" scitq-agent || :
fi
install -d -m 0755 -o scitq -g scitq /etc/scitq
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload || :
    # An upgrade: the server starts anew, which no task notices. To stop the worker ends its tasks, so that it is left alone.
    systemctl try-restart scitq-server.service || :
    if systemctl --quiet is-active scitq-agent.service; then
        echo "scitq-agent goes on in its old version; when it has no task: systemctl restart scitq-agent"
    fi
fi
