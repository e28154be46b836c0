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
    """What was found. is_setuid: it mounts images with root's help, which may be had here; mounts_by_fuse: without that help it can mount at all.

    converts: it can make images. is_whole_root: this user is root of the machine, with every capability of the kernel.
    is_inside: this is root of a user namespace, as in a container of an ordinary user.
    """

    program: str
    version: str
    is_setuid: bool
    mounts_by_fuse: bool
    converts: bool
    is_whole_root: bool
    is_inside: bool

    @property
    def prefix(self) -> str:
        """How the names of its variables begin."""
        return "SINGULARITY" if Path(self.program).name == "singularity" else "APPTAINER"

    @property
    def flags(self) -> list[str]:
        """A user namespace is asked for where apptainer would try more, and fail.

        It would for root without all capabilities (in a container), and as a setuid program where those have no effect.
        """
        return ["--userns"] if self.needs_namespace else []

    @property
    def needs_namespace(self) -> bool:
        """Whether apptainer must make a user namespace to run anything."""
        return not (self.is_whole_root or self.is_inside or self.is_setuid)

    @property
    def environment(self) -> dict[str, str]:
        """NO_EVAL: arguments and values of variables are taken as they are, not as a shell would read them.

        UNSQUASH: where images can't be mounted they are unpacked for each task. By variables, since older versions know no such flags.
        """
        found = {f"{self.prefix}_NO_EVAL": "1"}
        if not (self.is_setuid or self.mounts_by_fuse or self.is_whole_root):
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
    is_inside = os.geteuid() == 0 and not _is_machines_root()
    mounters = ("squashfuse_ll", "squashfuse")
    return Installation(
        program=program,
        version=version.splitlines()[0],
        is_setuid=_is_setuid(own / "starter-suid"),
        mounts_by_fuse=os.access(_FUSE, os.R_OK | os.W_OK) and any(shutil.which(mounter, path=places) for mounter in mounters),
        converts=shutil.which("mksquashfs", path=places) is not None,
        is_whole_root=os.geteuid() == 0 and not is_inside and _has_all_capabilities(),
        is_inside=is_inside,
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
    """Whether it is, and that has an effect here: it has none where no process may gain privileges."""
    try:
        found = starter.stat()
    except OSError:
        return False
    return found.st_uid == 0 and bool(found.st_mode & stat.S_ISUID) and proc.may_gain_privileges()


def _has_all_capabilities() -> bool:
    try:
        held = Path("/proc/self/status").read_text().partition("\nCapPrm:")[2].split(None, 1)[0]
        return int(held, 16) == (2 << int(Path("/proc/sys/kernel/cap_last_cap").read_text())) - 1
    except (OSError, ValueError, IndexError):
        return True


def _is_machines_root() -> bool:
    try:
        return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    except OSError:
        return True
