"""Images for apptainer's tests."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.lib import services


def archive(folder: Path, docker: services.DockerService, tag: str = "alpine:latest") -> str:
    """An image of the Docker engine as a file, as apptainer names it."""
    file = folder / f"{tag.replace(':', '-').replace('/', '-')}.tar"
    if not file.exists():
        docker.command("save", "-o", str(file), tag)
        file.chmod(0o644)
    return f"docker-archive:{file}"


def converted(folder: Path, docker: services.DockerService, tag: str = "alpine:latest") -> str:
    """An image of the Docker engine as a file that apptainer runs."""
    program = Path(services.service("apptainer").folder) / "apptainer"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{tag.replace(':', '-').replace('/', '-')}.sif"
    words = [program, "--silent", "build", "--disable-cache", file, archive(folder, docker, tag)]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return str(file)
