#!/bin/sh
# Build dist/scitq, the one file: PyInstaller's one-folder with its own C library, packed behind packaging/launcher.
# Usage: build/binary.sh        SCITQ_VENV: another virtual environment than .venv
set -eu
cd "$(dirname "$0")/.."
venv=${SCITQ_VENV:-.venv}
python=$venv/bin/python
work=out/binary

command -v gcc >/dev/null 2>&1 || missing="gcc libc6-dev"
printf '#include <zstd.h>\nint main(void){return !ZSTD_versionNumber();}\n' >out/.zstd.c 2>/dev/null || { mkdir -p out; printf '#include <zstd.h>\nint main(void){return !ZSTD_versionNumber();}\n' >out/.zstd.c; }
if ! gcc -static -o out/.zstd out/.zstd.c -lzstd 2>/dev/null; then missing="${missing:-} libzstd-dev"; fi
command -v strip >/dev/null 2>&1 && command -v objdump >/dev/null 2>&1 || missing="${missing:-} binutils"
rm -f out/.zstd out/.zstd.c
if [ -n "${missing:-}" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        echo "binary.sh: installing $missing" >&2
        # shellcheck disable=SC2086
        { apt-get install -y --no-install-recommends $missing || { apt-get update && apt-get install -y --no-install-recommends $missing; }; } >out/apt.log 2>&1 || {
            tail -n 20 out/apt.log >&2; echo "binary.sh: apt-get could not install $missing" >&2; exit 1; }
    else
        echo "binary.sh: $missing needed to build the launcher; on Debian: apt-get install $missing" >&2; exit 1
    fi
fi
mkdir -p out dist

# The libraries that go into the file are those of the lock.
"$python" build/locked.py ||
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes --requirement packaging/requirements.lock

rm -rf "$work"
mkdir -p "$work/record"
commit=$(git describe --always --dirty --abbrev=12 --match '' 2>/dev/null || echo unknown)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || echo 1700000000)
PYTHONHASHSEED=0
# Modules lie in it as they are: the whole is packed better by zstd, and no start has to unpack them.
PYINSTALLER_ZLIB_COMPRESSION_LEVEL=0
export SOURCE_DATE_EPOCH PYTHONHASHSEED PYINSTALLER_ZLIB_COMPRESSION_LEVEL
version=$(PYTHONPATH=src "$python" build/record.py "$commit" "$work/record/scitq_build.py")

gcc -std=c11 -O2 -Wall -Wextra -static -s -o "$work/launcher" packaging/launcher/*.c -lzstd
PYTHONPATH=src SCITQ_BUILD_RECORD=$PWD/$work/record PYINSTALLER_CONFIG_DIR=$PWD/$work/config PYTHONWARNINGS=ignore \
    "$python" -m PyInstaller --log-level WARN --noconfirm --distpath "$work/tree" --workpath "$work/work" scitq.spec
rm -rf "$work/work" "$work/config"
cp -L "$(cat "$work/record/loader")" "$work/tree/scitq/"
rm -f "$work/record/loader"
"$python" build/bundle.py "$work/launcher" "$work/tree/scitq" "$version" dist/scitq
rm -rf "$work"
