#!/bin/sh
# Lock anew what the one file is built from: packaging/requirements.lock, with hashes for every platform.
# Needs uv, in a folder of its own under .cache. Usage: build/lock.sh [--upgrade]
set -eu
cd "$(dirname "$0")/.."
[ -x .cache/uv/bin/uv ] || { "${PYTHON:-python3}" -m venv .cache/uv && .cache/uv/bin/python -m pip install --quiet --disable-pip-version-check uv; }
{
    echo "# What dist/scitq is built from. Made by build/lock.sh; do not edit."
    .cache/uv/bin/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header "$@" \
        $([ "${1:-}" = --upgrade ] || [ ! -s packaging/requirements.lock ] || echo --constraint packaging/requirements.lock) pyproject.toml
} >packaging/requirements.lock.part
mv packaging/requirements.lock.part packaging/requirements.lock
