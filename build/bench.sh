#!/bin/bash
# Measure scitq beside other tools, in one run, and print tables. Usage: build/bench.sh [section...] [--exe PATH] [--scale F]
set -euo pipefail
cd "$(dirname "$0")/.."
build/venv.sh
peers=.cache/bench-venv
if [ ! -e "$peers/ready" ] || [ build/requirements-bench.txt -nt "$peers/ready" ]; then
    "${PYTHON:-python3}" -m venv --clear "$peers"
    if "$peers/bin/python" -m pip install --quiet --disable-pip-version-check --requirement build/requirements-bench.txt 2>.cache/bench-pip.log; then
        touch "$peers/ready"
    else
        echo "bench: no HyperQueue and no AWS command line to compare with; see .cache/bench-pip.log" >&2
    fi
fi
if ! command -v parallel >/dev/null && [ "$(id -u)" = 0 ]; then
    PYTHONPATH=build .venv/bin/python -c 'from service.common import debian_packages; debian_packages("parallel")' || true
fi
before=" $(.venv/bin/python build/services.py running) "
to_stop=()
for one in docker s3; do [[ $before = *" $one "* ]] || to_stop+=("$one"); done
trap '[ ${#to_stop[@]} = 0 ] || .venv/bin/python build/services.py down "${to_stop[@]}"' EXIT
.venv/bin/python build/services.py up docker s3 || true
unset PYTHONDONTWRITEBYTECODE
.venv/bin/python -m tests.bench "$@"
