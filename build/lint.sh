#!/bin/sh
# Everything that needs no run: style, format, types, the direction of imports. Says all that is wrong, not only the first.
set -u
cd "$(dirname "$0")/.."
bin=${SCITQ_VENV:-.venv}/bin
bad=0
"$bin/ruff" check . || bad=1
"$bin/ruff" format --check . || bad=1
"$bin/mypy" || bad=1
PYTHONPATH=src "$bin/lint-imports" || bad=1
[ $bad = 0 ] || { echo "lint: not clean; 'make format' mends what can be mended" >&2; exit 1; }
