#!/bin/bash
# Run the tests with everything they need: virtual environment, Debian packages (as root), real services; stops what it started.
# Usage: build/test.sh [suite...] [-- options of pytest]
#   suites: lint unit contract integration e2e faults binary; none: all of them, the end-to-end ones against dist/scitq
set -uo pipefail
cd "$(dirname "$0")/.."

suites=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do suites+=("$1"); shift; done
[ $# -gt 0 ] && shift
options=("$@")
everything=no
if [ ${#suites[@]} = 0 ]; then
    everything=yes
    suites=(lint unit contract integration e2e faults binary)
fi
for suite in "${suites[@]}"; do
    case $suite in
        lint | unit | contract | integration | e2e | faults | binary) ;;
        *) echo "test.sh: unknown suite '$suite': lint unit contract integration e2e faults binary" >&2; exit 2 ;;
    esac
done
wants() { local one; for one in "${suites[@]}"; do [ "$one" = "$1" ] && return 0; done; return 1; }
say() { printf '\n=== %s (%s s)\n' "$*" "$SECONDS"; }

# The environment of the one who calls must not reach what is tested.
unset PYTHONDONTWRITEBYTECODE PYTHONPATH SCITQ_TOKEN SCITQ_SERVER SCITQ_CONFIG SCITQ_SERVER_KEY SLURM_CONF
budget=${SCITQ_TEST_BUDGET_S:-3300}
jobs=${SCITQ_TEST_JOBS:-2}

# Temporary files go where there is room; a test run needs less than 2 GiB.
mkdir -p out .cache
free_kib() { df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }'; }
most=0 place=
for candidate in out /tmp; do
    kib=$(free_kib "$candidate")
    echo "free space in $candidate: $((kib / 1024)) MiB"
    [ "$kib" -gt "$most" ] && [ -w "$candidate" ] && most=$kib place=$candidate
done
if [ -w /dev/shm ] && [ "$most" -lt $((3 * 1024 * 1024)) ]; then
    kib=$(free_kib /dev/shm)
    echo "free space in /dev/shm: $((kib / 1024)) MiB"
    [ "$kib" -gt "$most" ] && most=$kib place=/dev/shm
fi
[ "$most" -ge $((512 * 1024)) ] || { echo "test.sh: under 512 MiB free in every temporary folder; make room first" >&2; exit 1; }
scratch=$(mktemp -d "$(cd "$place" && pwd)/st-XXXXXX")
echo "temporary files: $scratch"

to_stop=()
stop_services() {
    [ ${#to_stop[@]} = 0 ] || .venv/bin/python build/services.py down "${to_stop[@]}"
    to_stop=()
}
clean_up() {
    local status=$?
    trap - EXIT INT TERM
    stop_services
    chmod -R u+rwX "$scratch" 2>/dev/null
    rm -rf "$scratch" 2>/dev/null || { sleep 2; rm -rf "$scratch"; }
    exit $status
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

build/venv.sh || exit 1
say "virtual environment ready"
python=$PWD/.venv/bin/python

bad=()
if wants lint; then
    say "lint"
    build/lint.sh || bad+=(lint)
fi

# What tests of processes use besides services.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    missing=()
    command -v zip >/dev/null || missing+=(zip)
    command -v bzip2 >/dev/null || missing+=(bzip2)
    command -v xz >/dev/null || missing+=(xz-utils)
    command -v zstd >/dev/null || missing+=(zstd)
    command -v ps >/dev/null || missing+=(procps)
    command -v ip >/dev/null || missing+=(iproute2)
    command -v zsh >/dev/null || missing+=(zsh)
    command -v fish >/dev/null || missing+=(fish)
    if wants contract || wants e2e || wants binary; then
        command -v podman >/dev/null || missing+=(podman runc)
        command -v newuidmap >/dev/null || missing+=(uidmap)
    fi
    if wants faults; then
        command -v sshfs >/dev/null || missing+=(sshfs)
        [ -x /usr/lib/openssh/sftp-server ] || missing+=(openssh-sftp-server)
    fi
    if wants binary; then
        command -v rpm >/dev/null || missing+=(rpm)
        command -v groff >/dev/null || missing+=(groff-base)
        [ -x /lib/systemd/systemd ] || missing+=(systemd)
        command -v gcc >/dev/null || missing+=(gcc libc6-dev)
        command -v slirp4netns >/dev/null || missing+=(slirp4netns)
        [ -x /usr/sbin/cron ] || missing+=(cron)
        [ -e /lib/systemd/system/dbus.service ] || missing+=(dbus)
        ls /lib/*/security/pam_systemd.so >/dev/null 2>&1 || missing+=(libpam-systemd)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        PYTHONPATH=build "$python" -c 'import sys; from service.common import debian_packages; debian_packages(*sys.argv[1:])' "${missing[@]}" || exit 1
    fi
fi

needed=()
if wants e2e || wants faults || wants binary; then needed=(docker registry s3 azurite gcs webdav slurm apptainer)
elif wants contract; then needed=(docker registry s3 azurite gcs webdav apptainer)
elif wants integration; then needed=(docker s3); fi
if [ ${#needed[@]} -gt 0 ]; then
    say "services"
    before=" $("$python" build/services.py running) "
    for one in "${needed[@]}"; do [[ $before = *" $one "* ]] || to_stop+=("$one"); done
    if ! "$python" build/services.py up "${needed[@]}"; then
        [ -z "${CI:-}" ] || { echo "test.sh: in CI every service must start" >&2; exit 1; }
        echo "test.sh: tests that need what is missing will be skipped" >&2
    fi
fi

exe=()
if [ -x build/binary.sh ] && [ -f scitq.spec ] && { [ $everything = yes ] || wants binary; }; then
    say "building dist/scitq"
    if build/binary.sh >out/binary.log 2>&1; then
        exe=(--exe "$PWD/dist/scitq")
    else
        tail -n 40 out/binary.log
        bad+=(build-of-dist/scitq)
    fi
fi

export TMPDIR=$scratch/tmp
mkdir -p "$TMPDIR" out/reports
passed=0 failed=0 skipped=0

count() { # the sums of a junit file into passed, failed, skipped; $2: only the passes of a second try
    read -r p f s < <("$python" build/junit.py "$1")
    if [ "${2:-}" = again ]; then passed=$((passed + p)) failed=$((failed - p)); else passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s)); fi
}

one_pytest() { # one_pytest NAME ARGUMENT...: runs it within what is left of the budget
    local name=$1 left=$((budget - SECONDS))
    shift
    [ $left -gt 60 ] || left=60
    rm -rf "$scratch/pytest"
    timeout --foreground -k 60 -s INT $left "$python" -m pytest -o "cache_dir=out/pytest-$name" --basetemp "$scratch/pytest" \
        --timeout 300 --durations 15 "$@"
}

run() { # run NAME ARGUMENT...: in parallel, then once more alone what failed
    local name=$1 status
    shift
    say "tests: $name"
    rm -rf "out/pytest-$name"
    one_pytest "$name" -n "$jobs" --dist loadgroup --junit-xml "out/reports/$name.xml" "$@" "${options[@]}"
    status=$?
    count "out/reports/$name.xml"
    case $status in
        0) return 0 ;;
        5) echo "(no tests in $name)"; return 0 ;;
        1) ;;
        *) echo "test.sh: pytest ended with $status in $name" >&2; bad+=("$name"); return 0 ;;
    esac
    # pytest-xdist notes tests of a group as `name@group`, which --lf would not find.
    "$python" - "out/pytest-$name/v/cache/lastfailed" <<'P'
import json, pathlib, sys
file = pathlib.Path(sys.argv[1])
names = json.loads(file.read_text())
file.write_text(json.dumps({name.rpartition("@")[0] if name.rfind("@") > name.rfind("]") else name: True for name in names}))
P
    cp "out/pytest-$name/v/cache/lastfailed" "out/reports/$name.first-try"
    if [ "$("$python" -c 'import json, sys; print(len(json.load(open(sys.argv[1]))))' "out/reports/$name.first-try")" -gt 30 ]; then
        echo "test.sh: too many failures in $name for a second try"
        bad+=("$name")
        return 0
    fi
    say "tests: $name, what failed, alone"
    one_pytest "$name" --lf --lfnf=none --junit-xml "out/reports/$name-again.xml" "$@" "${options[@]}"
    status=$?
    count "out/reports/$name-again.xml" again
    echo "passed only at the second try:"
    "$python" - "out/reports/$name.first-try" "out/pytest-$name/v/cache/lastfailed" <<'P'
import json, pathlib, sys
first = json.loads(pathlib.Path(sys.argv[1]).read_text())
last = pathlib.Path(sys.argv[2])
again = json.loads(last.read_text()) if last.is_file() else {}
print("\n".join(f"  UNSTABLE {name}" for name in first if name not in again) or "  none")
P
    [ $status = 0 ] || bad+=("$name")
}

folders() { local one; for one in "$@"; do wants "$one" && [ -d "tests/$one" ] && find "tests/$one" -name 'test_*.py' -print -quit | grep -q . && echo "tests/$one"; done; }
mapfile -t plain < <(folders unit contract integration faults)
mapfile -t whole < <(folders e2e binary)
[ ${#plain[@]} = 0 ] || run main "${plain[@]}"
[ ${#whole[@]} = 0 ] || run whole "${whole[@]}" "${exe[@]}"

stop_services
say "done"
[ "$failed" -ge 0 ] || failed=0
if [ ${#bad[@]} -gt 0 ]; then
    echo "test.sh: failed: ${bad[*]}"
    [ "$failed" -gt 0 ] || failed=1
fi
[ $skipped = 0 ] || echo "skipped: $skipped"
echo "$passed passed, $failed failed"
[ ${#bad[@]} = 0 ]
