#!/bin/sh
# Before removal, not before an upgrade: dpkg says "remove", rpm says 0.
set -e
case ${1:-} in
    remove | purge | 0)
        if [ -d /run/systemd/system ]; then systemctl disable --now scitq-server.service scitq-agent.service >/dev/null 2>&1 || :; fi ;;
esac
