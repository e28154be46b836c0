#!/bin/sh
# Write the generated pages of docs/. Usage: build/docs.sh [--check]
set -eu
cd "$(dirname "$0")/.."
exec "${SCITQ_VENV:-.venv}/bin/python" build/docs.py "$@"
