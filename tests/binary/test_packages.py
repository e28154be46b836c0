"""The deb and the rpm: installed, started, upgraded and removed; the units; the wheel."""

from __future__ import annotations

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

import scitq
from scitq.commands import table
from tests.lib.onefile import ROOT

pytestmark = pytest.mark.xdist_group("packages")

NEWER = "99.0.0"

# A machine of its own: this one's file system with all changes kept in memory, its own network and processes.
MACHINE = """
mount --make-rprivate /
mount -t tmpfs -o size=1g none {work}
mkdir {work}/upper {work}/work {work}/root
mount -t overlay -o lowerdir=/,upperdir={work}/upper,workdir={work}/work none {work}/root
mount -t proc proc {work}/root/proc
mount --rbind /dev {work}/root/dev
mount -t tmpfs none {work}/root/run
mount -t tmpfs none {work}/root/tmp
mkdir {work}/root/tmp/packages
mount --bind {packages} {work}/root/tmp/packages
ip link set lo up
cd /
exec chroot {work}/root /usr/bin/env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -euc "$1"
"""

SCENARIO = """
version() { scitq --version; }
entry() { sed -n "s/^$2=//p" /usr/lib/systemd/system/$1.service; }
start() { # what systemd does with a unit
    local unit=$1 user; user=$(entry $unit User)
    install -d -m $(entry $unit StateDirectoryMode) -o $user -g $user /var/lib/$(entry $unit StateDirectory)
    install -d -m 0700 -o $user -g $user /var/cache/$(entry $unit CacheDirectory)
    install -d -m 0700 -o $user -g $user /run/$(entry $unit RuntimeDirectory)
    setpriv --reuid=$user --regid=$user --init-groups env $(entry $unit Environment) \
        SCITQ_AGENT_OPTIONS="${SCITQ_AGENT_OPTIONS:-}" sh -c "cd / && exec $(entry $unit ExecStart)" >/tmp/$unit.log 2>&1 &
}
answers() { for _ in $(seq 600); do scitq ping --quiet >/dev/null 2>&1 && return 0; sleep 0.1; done; cat /tmp/*.log >&2; return 1; }

install_it
version
id -u scitq scitq-agent >/dev/null
id -nG scitq-agent | grep -qw docker
test "$(stat -c %U /etc/scitq)" = scitq
gzip -t /usr/share/man/man1/scitq.1.gz /usr/share/man/man1/scitq-task-create.1.gz
bash -n /usr/share/bash-completion/completions/scitq
grep -q 'task' "$zsh_folder/_scitq" /usr/share/fish/vendor_completions.d/scitq.fish

install -d -m 0700 -o scitq -g scitq /var/cache/scitq /var/lib/scitq
runuser -u scitq -- env HOME=/var/lib/scitq SCITQ_CACHE=/var/cache/scitq \
    scitq config init --config /etc/scitq/scitq.yaml --data-dir /var/lib/scitq >/root/password 2>/dev/null
export SCITQ_SERVER=localhost:50051
start scitq-server
answers
SCITQ_TOKEN=$(scitq login --user admin --password-file /root/password --no-session)
export SCITQ_TOKEN
scitq user token create --worker >/etc/scitq/worker.token
chown scitq-agent /etc/scitq/worker.token
chmod 0400 /etc/scitq/worker.token
. /etc/default/scitq-agent
start scitq-agent
id=$(scitq task create --container bare --command 'id -un' --quiet)
scitq task wait --id $id --timeout 60s >/dev/null || { cat /tmp/*.log >&2; exit 1; }
scitq task output --id $id

echo '# mine' >>/etc/default/scitq-agent
upgrade_it
answers
grep -q '# mine' /etc/default/scitq-agent
scitq task output --id $id

remove_it
test ! -e /usr/bin/scitq
test ! -e /usr/lib/systemd/system/scitq-server.service
test -s /etc/scitq/scitq.yaml
test -e /var/lib/scitq/worker.token || ls /var/lib/scitq >/dev/null
echo gone
"""

DEB = """
zsh_folder=/usr/share/zsh/vendor-completions
install_it() { dpkg -i /tmp/packages/scitq_%(old)s-1_*.deb >/tmp/install.log 2>&1 || { cat /tmp/install.log >&2; return 1; }; }
upgrade_it() { dpkg -i /tmp/packages/scitq_%(new)s-1_*.deb >/tmp/install.log 2>&1 || { cat /tmp/install.log >&2; return 1; }; }
remove_it() { dpkg -r scitq >/dev/null; }
"""

RPM = """
zsh_folder=/usr/share/zsh/site-functions
options=--nodeps
rpm --help | grep -q force-debian && options="$options --force-debian"
install_it() { rpm --install $options /tmp/packages/scitq-%(old)s-1.*.rpm; }
upgrade_it() { rpm --upgrade $options /tmp/packages/scitq-%(new)s-1.*.rpm; }
remove_it() { rpm --erase $options scitq; }
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="installing a package needs root")
@pytest.mark.parametrize(("tool", "words"), [("dpkg", DEB), ("rpm", RPM)])
def test_a_package_is_installed_started_upgraded_and_removed(packages: Path, tmp_path: Path, tool: str, words: str) -> None:
    if shutil.which(tool) is None:
        pytest.fail(f"{tool} is not here; on Debian: apt-get install {tool}")
    (tmp_path / "machine").mkdir()
    machine = MACHINE.format(work=tmp_path / "machine", packages=packages)
    scenario = words % {"old": scitq.__version__, "new": NEWER} + SCENARIO
    done = subprocess.run(
        ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "sh", "-ec", machine, "sh", scenario],
        capture_output=True,
        text=True,
        timeout=280,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == ["scitq", scitq.__version__, "scitq-agent", "scitq-agent", "gone"], done.stderr


@pytest.mark.parametrize(
    "unit", sorted((ROOT / "packaging/systemd").glob("**/*.service")), ids=lambda path: f"{path.parent.name}-{path.stem}"
)
def test_units_are_understood_by_systemd(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not here")
    copy = tmp_path / unit.name
    text = unit.read_text().replace("/usr/bin/scitq ", "/bin/true ").replace("%h/.local/bin/scitq ", "/bin/true ")
    copy.write_text("".join(line for line in text.splitlines(True) if not line.startswith("Documentation=")))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=60)
    assert [line for line in done.stderr.splitlines() if unit.name in line] == []


def test_the_sample_is_what_config_init_writes() -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "build/sample.py"], env=os.environ | {"PYTHONPATH": str(ROOT / "src")}, capture_output=True, text=True
    )
    assert made.stdout == (ROOT / "packaging/scitq.yaml").read_text()


def test_every_command_has_a_man_page_that_any_terminal_can_show(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, ROOT / "build/man.py", tmp_path], env=environment, check=True, capture_output=True, timeout=120)
    pages = sorted(tmp_path.glob("*.1"))
    assert {page.stem for page in pages} == {"scitq", *("-".join(("scitq", *one.path)) for one in table.COMMANDS)}
    shown = subprocess.run(["groff", "-man", "-ww", "-K", "utf8", "-T", "ascii", "-z", *pages], capture_output=True, text=True, timeout=120)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.match(r'\.TH SCITQ "1" "\d{4}-\d\d-\d\d" ', (tmp_path / "scitq.1").read_text())


def imported(tree: ast.AST) -> set[str]:
    """The top-level names that a module imports at any time, but for those that only mypy sees."""
    found: set[str] = set()
    waiting = [tree]
    while waiting:
        one = waiting.pop()
        if isinstance(one, ast.If) and "TYPE_CHECKING" in ast.unparse(one.test):
            waiting += one.orelse
            continue
        if isinstance(one, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in one.names}
        elif isinstance(one, ast.ImportFrom) and not one.level:
            found.add(str(one.module).partition(".")[0])
        waiting += ast.iter_child_nodes(one)
    return found


def test_the_source_imports_nothing_but_what_is_locked() -> None:
    locked = {
        canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", (ROOT / "packaging/requirements.lock").read_text(), re.MULTILINE)
    }
    owners = importlib.metadata.packages_distributions()
    modules = {path: imported(ast.parse(path.read_text())) for path in (ROOT / "src/scitq").rglob("*.py")}
    used = set().union(*modules.values()) - set(sys.stdlib_module_names) - {"scitq", "scitq_build"}
    assert {"rich", "zmq", "botocore"} <= used
    foreign = {name for name in used if not {canonicalize_name(owner) for owner in owners.get(name, [])} & locked}
    assert {str(path): names & foreign for path, names in modules.items() if names & foreign} == {}


def test_the_wheel_gives_the_same_command(tmp_path: Path) -> None:
    environment = os.environ | {"SCITQ_VENV": sys.prefix, "SCITQ_PACKAGE_DIR": str(tmp_path)}
    done = subprocess.run([ROOT / "build/packages.sh", "wheel"], env=environment, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("scitq-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert any(name.endswith(".sql") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "build/"))]
    python = tmp_path / "venv/bin/python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=120)
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    environment.pop("PYTHONPATH", None)  # scitq itself would be found there
    subprocess.run(pip, check=True, timeout=120, env=environment)
    for words in ([tmp_path / "venv/bin/scitq"], [python, "-m", "scitq"]):
        said = subprocess.run([*words, "--version"], env={"HOME": str(tmp_path)}, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (said.returncode, said.stdout) == (0, f"scitq {scitq.__version__}\n"), said.stderr
