"""The apptainer of this machine: which it is, what it may do here, and so how containers are started (docs/agent.md, "Runtimes")."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

from scitq.errors import UnavailableError
from scitq.util import proc

_ASK_S = 30.0
_FUSE = Path("/dev/fuse")


@dataclass(frozen=True, slots=True)
class Installation:
    """What was found. is_setuid: it mounts images with root's help; mounts_by_fuse: without that help it can mount at all.

    has_all: this user is root with every capability of the kernel.
    """

    program: str
    version: str
    is_setuid: bool
    mounts_by_fuse: bool
    converts: bool
    has_all: bool

    @property
    def prefix(self) -> str:
        """How the names of its variables begin."""
        return "SINGULARITY" if Path(self.program).name == "singularity" else "APPTAINER"

    @property
    def flags(self) -> list[str]:
        """Root without all capabilities (in a container) gets a user namespace, for apptainer would ask for what it can't give."""
        return ["--userns"] if os.geteuid() == 0 and not self.has_all else []

    @property
    def environment(self) -> dict[str, str]:
        """NO_EVAL: arguments and values of variables are taken as they are, not as a shell would read them.

        UNSQUASH: where images can't be mounted they are unpacked for each task. By variables, since older versions know no such flags.
        """
        found = {f"{self.prefix}_NO_EVAL": "1"}
        if not (self.is_setuid or self.mounts_by_fuse or self.has_all):
            found[f"{self.prefix}_UNSQUASH"] = "1"
        return found


def find() -> Installation:
    """Look at it. Raises UnavailableError when there is none, or when it does not answer."""
    program = shutil.which("apptainer") or shutil.which("singularity")
    if program is None:
        raise UnavailableError("apptainer is not installed")
    version = _ask(program, "--version")
    try:
        told = dict(line.partition("=")[::2] for line in _ask(program, "buildcfg").splitlines())
    except UnavailableError:
        told = {}
    name = "singularity" if "singularity" in version else "apptainer"
    own = Path(told.get("LIBEXECDIR") or "/usr/libexec", name, "bin")
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), str(own), "/usr/local/sbin", "/usr/sbin", "/sbin"])
    mounters = ("squashfuse_ll", "squashfuse")
    return Installation(
        program=program,
        version=version.splitlines()[0],
        is_setuid=_is_setuid(own / "starter-suid"),
        mounts_by_fuse=os.access(_FUSE, os.R_OK | os.W_OK) and any(shutil.which(mounter, path=places) for mounter in mounters),
        converts=shutil.which("mksquashfs", path=places) is not None,
        has_all=_has_all_capabilities(),
    )


def has_user_namespaces() -> bool:
    """Whether this user may make them; True when that can't be tried."""
    try:
        return proc.run(["unshare", "--user", "--map-root-user", "true"], timeout_s=_ASK_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return True


def _ask(program: str, word: str) -> str:
    try:
        ran = proc.run([program, word], timeout_s=_ASK_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UnavailableError(f"{program} {word}: {error}") from None
    if ran.returncode != 0:
        raise UnavailableError(f"{program} {word}: {ran.stderr.decode('utf-8', 'replace').strip()[-500:] or f'status {ran.returncode}'}")
    return ran.stdout.decode("utf-8", "replace").strip()


def _is_setuid(starter: Path) -> bool:
    try:
        found = starter.stat()
    except OSError:
        return False
    return found.st_uid == 0 and bool(found.st_mode & stat.S_ISUID)


def _has_all_capabilities() -> bool:
    try:
        held = int(Path("/proc/self/status").read_text().partition("\nCapPrm:")[2].split(None, 1)[0], 16)
        last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    except (OSError, ValueError, IndexError):
        return os.geteuid() == 0
    return held == (1 << (last + 1)) - 1
