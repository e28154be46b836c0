#!/bin/sh
# After removal. Data and configuration stay (/var/lib/scitq, /var/lib/scitq-agent, /etc/scitq); `apt-get purge` takes the caches.
set -e
case ${1:-} in
    remove | purge | 0) rm -rf /var/cache/scitq /var/cache/scitq-agent /run/scitq-agent ;;
esac
if [ -d /run/systemd/system ]; then systemctl daemon-reload || :; fi
