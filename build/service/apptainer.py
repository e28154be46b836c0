"""A real apptainer: Debian has it in its unstable suite alone, so it gets a folder of its own, with the C library that it wants.

Nothing of it is installed on the machine. The suite's package list is fetched with lists of our own (23 MB, thrown away again),
so that the machine's apt does not change. apptainer runs from anywhere as long as its folders lie around it as built; its
two programs are made to use the C library beside them.
"""

from __future__ import annotations

import os
import platform
import shutil
import stat
import subprocess
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

from service import images
from service.common import CACHE, Processes, ServiceError, debian_packages, folder, have, program, say

SUITE = "sid"
PLACE = CACHE / "apptainer"
TRIES = 3
# What the machine's own suite has as well as any: to make images, to mount them for an ordinary user, to adapt programs.
HELPERS = {"mksquashfs": "squashfs-tools", "squashfuse": "squashfuse", "patchelf": "patchelf"}


def apptainer() -> tuple[dict[str, Any], Processes]:
    """apptainer in .cache/apptainer; made when it is not there yet, kept as long as this recipe stays the same."""
    if platform.machine() != "x86_64":
        raise ServiceError(f"made for x86_64, this is {platform.machine()}")
    if missing := [package for name, package in HELPERS.items() if not have(name)]:
        debian_packages(*missing)
    _open_fuse()
    found = PLACE / sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    if not found.is_dir():
        images.ensure_tools()
        shutil.rmtree(PLACE, ignore_errors=True)
        PLACE.mkdir(parents=True)
        with tempfile.TemporaryDirectory(dir=PLACE) as name:
            scratch = Path(name)
            # packages are opened under the final name, which goes into the programs, and the whole is dropped when that fails
            try:
                _unpack(_download(scratch), found)
                _adapt(found)
            except BaseException:
                shutil.rmtree(found, ignore_errors=True)
                raise
    words = [str(found / "usr/bin/apptainer"), "--version"]
    told = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    if told.returncode:
        raise ServiceError(f"{' '.join(words)}: {told.stderr.strip()}")
    version = told.stdout.split()[-1]
    return {"folder": str(found / "usr/bin"), "version": version}, Processes("apptainer", folder("apptainer", fresh=False))


def is_there(facts: dict[str, Any]) -> bool:
    """Whether what `up` made is still there."""
    return os.access(Path(facts["folder"]) / "apptainer", os.X_OK)


def _open_fuse() -> None:
    """Give /dev/fuse the mode that udev gives it everywhere; containers and small virtual machines often have no udev."""
    device = Path("/dev/fuse")
    if os.geteuid() == 0 and device.exists() and stat.S_IMODE(device.stat().st_mode) != 0o666:
        device.chmod(0o666)


def _download(scratch: Path) -> list[Path]:
    """The packages, checked by apt against the suite's signature."""
    for part in ("lists/partial", "cache/archives/partial", "parts", "debs"):
        (scratch / part).mkdir(parents=True)
    told = subprocess.run(
        [program("apt-get"), "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    mirror = next((line.split()[1] for line in told.stdout.splitlines() if line.startswith("Debian ") and "security" not in line), None)
    if mirror is None:
        raise ServiceError("this machine's apt knows no Debian archive; apptainer is taken from Debian")
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (scratch / "sources.list").write_text(f"deb [signed-by={keys}] {mirror} {SUITE} main\n")
    (scratch / "apt.conf").write_text(
        f'Dir::Etc::SourceList "{scratch}/sources.list";\nDir::Etc::SourceParts "{scratch}/parts";\n'
        f'Dir::Etc::PreferencesParts "{scratch}/parts";\nDir::State::Lists "{scratch}/lists";\nDir::Cache "{scratch}/cache";\n'
        'Acquire::Languages "none";\nAcquire::Retries "3";\nAPT::Sandbox::User "root";\n'
    )
    environment = os.environ | {"APT_CONFIG": str(scratch / "apt.conf"), "LC_ALL": "C"}

    def apt(*words: str) -> subprocess.CompletedProcess[str]:
        options: dict[str, Any] = {"env": environment, "cwd": scratch / "debs", "stdin": subprocess.DEVNULL, "timeout": 300}
        return subprocess.run(words, capture_output=True, text=True, check=False, **options)

    say(f"fetching apptainer from Debian's {SUITE}")
    for number in range(TRIES):
        time.sleep(5 * number)
        done = apt("apt-get", "update", "-q", "-o", "APT::Update::Error-Mode=any")
        if done.returncode:
            continue
        done = apt("apt-cache", "depends", "--no-recommends", "--no-suggests", "apptainer")
        if done.returncode or "Depends:" not in done.stdout:
            raise ServiceError(f"Debian's {SUITE} has no package apptainer at present")
        needed = {line.split()[-1] for line in done.stdout.splitlines() if "Depends:" in line}
        done = apt("apt-get", "download", "-q", "apptainer", *(name for name in sorted(needed) if name.startswith("lib")))
        if done.returncode == 0:
            return sorted((scratch / "debs").glob("*.deb"))
    raise ServiceError(f"apptainer could not be fetched from Debian's {SUITE}, tried {TRIES} times:\n{done.stderr.strip()[-1500:]}")


def _unpack(packages: list[Path], to: Path) -> None:
    to.mkdir()
    for package in packages:
        subprocess.run([program("dpkg-deb"), "-x", package, to], check=True, timeout=120)
    shutil.rmtree(to / "usr/share", ignore_errors=True)
    # where a moved apptainer looks for its settings and its folder for mounts: seen from bin/, and from its own lib/
    (to / "usr/var/lib/apptainer/mnt/session").mkdir(parents=True)
    (to / "usr/etc").symlink_to("../etc")
    (to / "usr/lib/etc").symlink_to("../../etc")
    (to / "usr/lib/var").symlink_to("../var")


def _adapt(root: Path) -> None:
    libraries = root / "usr/lib/x86_64-linux-gnu"
    words = [program("patchelf"), "--set-interpreter", libraries / "ld-linux-x86-64.so.2", "--force-rpath", "--set-rpath", libraries]
    # --force-rpath: apptainer starts itself with an LD_LIBRARY_PATH of the machine's libraries when it unpacks an image
    for name in (root / "usr/bin/apptainer", libraries / "apptainer/bin/starter"):
        done = subprocess.run([*words, name], capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise ServiceError(f"patchelf {name.name}: {done.stderr.strip()}")
