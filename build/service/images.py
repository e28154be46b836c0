"""Test images out of Debian packages: nothing can be pulled where the tests run.

`alpine:latest` is busybox alone (no glibc, like the real one). `python:3.12` is Debian's Python with bash, dash and perl:
the name is the guide's, the version is the one Debian has. Both are tars in .cache/images, imported as one layer.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from service.common import CACHE, ServiceError, debian_packages, say

KEPT = CACHE / "images"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CHANGES = {
    "alpine:latest": ["CMD [\"/bin/sh\"]", f"ENV {PATH}", "WORKDIR /"],
    "python:3.12": ["CMD [\"python\"]", f"ENV {PATH}", "WORKDIR /"],
}  # fmt: skip
USERS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nscience:x:1000:1000::/tmp:/bin/sh\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\nscience:x:1000:\n"


def tar_of(tag: str) -> Path:
    """The file system of the image `tag` as a tar; made when it is not there yet."""
    maker = {"alpine:latest": _alpine, "python:3.12": _python}[tag]
    stamp = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:12]
    kept = KEPT / f"{tag.partition(':')[0]}-{stamp}.tar"
    if kept.is_file():
        return kept
    KEPT.mkdir(parents=True, exist_ok=True)
    for old in KEPT.glob(f"{tag.partition(':')[0]}-*.tar"):
        old.unlink()
    say(f"making the image {tag}")
    with tempfile.TemporaryDirectory(dir=KEPT) as name:
        root = Path(name) / "root"
        for part in ("bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var/tmp"):
            (root / part).mkdir(parents=True)
        maker(root, Path(name))
        (root / "etc/passwd").write_text(USERS)
        (root / "etc/group").write_text(GROUPS)
        for part in ("tmp", "var/tmp"):
            (root / part).chmod(0o1777)
        draft = Path(name) / "image.tar"
        with tarfile.open(draft, "w") as tar:
            tar.add(root, arcname=".", filter=_as_root)
        draft.replace(kept)
    return kept


def import_into_engine(docker: str, tag: str) -> None:
    """Give the engine the image `tag` unless it has the one made from the same recipe."""
    tar = tar_of(tag)
    label = f"scitq.test={tar.name}"
    command = [docker, "image", "inspect", "--format", "{{json .Config.Labels}}", tag]
    seen = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if seen.returncode == 0 and tar.name in seen.stdout:
        return
    changes = [word for change in [*CHANGES[tag], f"LABEL {label}"] for word in ("--change", change)]
    done = subprocess.run([docker, "import", *changes, str(tar), tag], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise ServiceError(f"docker import {tag} failed: {done.stderr.strip()}")


def _alpine(root: Path, scratch: Path) -> None:
    _unpack(scratch, root, "busybox-static")
    _busybox_links(root)
    shutil.rmtree(root / "usr/share", ignore_errors=True)


def _python(root: Path, scratch: Path) -> None:
    version = _python_version()
    _unpack(
        scratch, root, "libc6", "libgcc-s1", "zlib1g", "libexpat1", "libcrypt1", "libtinfo6", "libbz2-1.0", "liblzma5", "libffi8",
        "libssl3", "busybox-static", "bash", "dash", "perl-base", f"lib{version}-minimal", f"lib{version}-stdlib", f"{version}-minimal",
    )  # fmt: skip
    for name in ("python", "python3"):
        (root / "usr/bin" / name).symlink_to(version)
    _busybox_links(root)
    for part in ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/bug"):
        shutil.rmtree(root / part, ignore_errors=True)
    for loader in root.glob("lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"):
        (root / "lib64").mkdir(exist_ok=True)
        link = root / "lib64" / loader.name
        if not link.is_symlink() and not link.exists():
            link.symlink_to(f"/lib/x86_64-linux-gnu/{loader.name}")


def _python_version() -> str:
    shown = subprocess.run(["apt-cache", "depends", "python3-minimal"], capture_output=True, text=True, timeout=60, check=False).stdout
    found = re.search(r"\b(python3\.\d+)-minimal\b", shown)
    if found:
        return found[1]
    return "python3.11"


def _unpack(scratch: Path, root: Path, *packages: str) -> None:
    """Put the files of Debian packages into a folder, without installing them on this machine."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        raise ServiceError(f"needs Debian's apt-get and dpkg-deb to make test images, or a docker image named as in {Path(__file__).name}")
    debs = scratch / "debs"
    debs.mkdir(exist_ok=True)
    debs.chmod(0o777)
    download = ["apt-get", "download", "-q", *packages]
    done = subprocess.run(download, cwd=debs, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode and os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-q"], capture_output=True, timeout=600, check=False)
        done = subprocess.run(download, cwd=debs, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise ServiceError(f"apt-get download failed: {done.stderr.strip()[-1500:]}")
    for deb in sorted(debs.glob("*.deb")):
        # A merged /usr is not assumed: /bin and /usr/bin stay apart, as the packages have it.
        subprocess.run(["dpkg-deb", "-x", str(deb), str(root)], check=True, timeout=120)
        deb.unlink()


def _busybox_links(root: Path) -> None:
    names = subprocess.run([str(root / "bin/busybox"), "--list"], capture_output=True, text=True, timeout=30, check=True).stdout.split()
    for name in names:
        if not any((root / place / name).is_symlink() or (root / place / name).exists() for place in ("bin", "usr/bin")):
            (root / "bin" / name).symlink_to("busybox")
    if not (root / "usr/bin/env").exists():
        (root / "usr/bin/env").symlink_to("/bin/busybox")


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    member.mtime = 0
    return member


def ensure_tools() -> None:
    """Debian's download needs package lists; make them when there are none."""
    lists = Path("/var/lib/apt/lists")
    if not any(lists.glob("*_Packages*")):
        if os.geteuid() != 0:
            raise ServiceError("Debian's package lists are missing; as root: apt-get update")
        debian_packages("ca-certificates")
