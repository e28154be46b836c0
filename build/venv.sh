#!/bin/sh
# Make the virtual environment with scitq (editable), its dependencies and the development tools. Repeatable and quick when nothing changed.
# Usage: build/venv.sh [--runtime] [folder]      folder: .venv by default; --runtime: scitq and its dependencies alone
set -eu
cd "$(dirname "$0")/.."

runtime=no
if [ "${1:-}" = --runtime ]; then runtime=yes; shift; fi
folder=${1:-.venv}
python=${PYTHON:-python3}

command -v "$python" >/dev/null 2>&1 || { echo "venv.sh: no $python on PATH; scitq needs Python 3.11 or newer" >&2; exit 1; }
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "venv.sh: scitq needs Python 3.11 or newer; $python is $("$python" -V). Set PYTHON=/path/to/python3" >&2; exit 1; }
"$python" -c 'import venv, ensurepip' 2>/dev/null || {
    echo "venv.sh: $python has no venv module; on Debian: apt-get install python3-venv" >&2; exit 1; }

mkdir -p .cache
stamp() { cat pyproject.toml setup.py build/requirements.txt; "$python" -V; echo "$runtime"; pwd; }
wanted=$(stamp | "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')

make_it() {
    [ "$(cat "$folder/scitq-stamp" 2>/dev/null || :)" = "$wanted" ] && return 0
    echo "venv.sh: making $folder (a minute or so)" >&2
    [ -x "$folder/bin/python" ] && "$folder/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$folder"
    rm -f "$folder/scitq-stamp"
    set -- --editable .
    [ $runtime = yes ] || set -- "$@" --requirement build/requirements.txt
    install() { "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >.cache/venv.log 2>&1; }
    if ! install "$@" && ! install "$@"; then
        tail -n 30 .cache/venv.log >&2
        echo "venv.sh: pip failed; the whole log is in .cache/venv.log" >&2
        return 1
    fi
    echo "$wanted" >"$folder/scitq-stamp"
}

if command -v flock >/dev/null 2>&1; then
    exec 9>.cache/venv.lock
    flock 9
fi
make_it
