"""The real services that `build/services.py up` started, as tests see them."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import pytest

ROOT = Path(__file__).resolve().parents[2]
STATE = ROOT / ".cache" / "services.json"
IN_CI = os.environ.get("CI", "").lower() in {"1", "true", "yes"}


@dataclass(frozen=True, slots=True)
class S3Service:
    """An S3 server with keys; path-style addresses."""

    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def client(self) -> Any:
        """A boto3 client of this server."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=Config(s3={"addressing_style": "path"}),
        )

    def new_bucket(self, prefix: str = "b") -> str:
        """Make a bucket of a new name; returns the name. SeaweedFS keeps volumes for each bucket: make few, use prefixes."""
        name = f"{prefix}-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def drop_bucket(self, name: str) -> None:
        """Delete a bucket with all that is in it, and its volumes with it."""
        client = self.client()
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=name):
            if found := page.get("Contents"):
                client.delete_objects(Bucket=name, Delete={"Objects": [{"Key": one["Key"]} for one in found], "Quiet": True})
        client.delete_bucket(Bucket=name)

    def rclone(self) -> dict[str, str]:
        """This server as an entry of scitq.yaml's `rclone` section."""
        return {
            "type": "s3",
            "provider": "Other",
            "endpoint": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "region": self.region,
        }


@dataclass(frozen=True, slots=True)
class AzuriteService:
    """An Azure Blob server."""

    endpoint: str
    account: str
    key: str

    def rclone(self) -> dict[str, str]:
        """This server as an entry of scitq.yaml's `rclone` section."""
        return {"type": "azureblob", "account": self.account, "key": self.key, "endpoint": self.endpoint}


@dataclass(frozen=True, slots=True)
class GcsService:
    """A Google storage server, without credentials."""

    endpoint: str
    base: str
    project: str

    def rclone(self) -> dict[str, str]:
        """This server as an entry of scitq.yaml's `rclone` section."""
        return {
            "type": "google cloud storage",
            "endpoint": self.endpoint,
            "anonymous": "true",
            "project_number": self.project,
            "bucket_policy_only": "true",
        }


@dataclass(frozen=True, slots=True)
class WebdavService:
    """A WebDAV server with a user; `folder` is what it serves."""

    url: str
    user: str
    password: str
    folder: str

    def rclone(self) -> dict[str, str]:
        """This server as an entry of scitq.yaml's `rclone` section; rclone wants the password obscured."""
        from_rclone = subprocess.run([str(_beside_python("rclone")), "obscure", self.password], capture_output=True, text=True, check=True)
        return {"type": "webdav", "url": self.url, "vendor": "other", "user": self.user, "pass": from_rclone.stdout.strip()}


@dataclass(frozen=True, slots=True)
class RegistryService:
    """Two Docker registries on loopback: `address` is open, `private` asks for `user` and `password`."""

    address: str
    private: str
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class SlurmService:
    """A Slurm of one node; set SLURM_CONF to `conf`."""

    conf: str
    node: str
    partition: str

    def environment(self) -> dict[str, str]:
        """What Slurm's commands need in their environment."""
        return {"SLURM_CONF": self.conf}


@dataclass(frozen=True, slots=True)
class DockerService:
    """The Docker engine, with the test images `alpine:latest` (busybox) and `python:3.12` (Debian's Python, bash, perl)."""

    host: str
    images: list[str]

    def command(self, *words: str, data: bytes | None = None) -> str:
        """Run `docker WORDS`; returns its stdout, raises when it fails."""
        done = subprocess.run(["docker", *words], input=data, capture_output=True, check=False, timeout=120)
        assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr.decode(errors='replace')}"
        return done.stdout.decode()

    def derived(self, tag: str, changes: Sequence[str], base: str = "alpine:latest", script: str = "true") -> str:
        """Make the image `tag` from `base`: run `script` in it, then apply Dockerfile instructions such as `USER 1000`."""
        container = self.command("create", "--network", "none", base, "/bin/sh", "-c", script).strip()
        try:
            self.command("start", "--attach", container)
            words = [word for change in changes for word in ("--change", change)]
            self.command("commit", *words, container, tag)
        finally:
            self.command("rm", "-f", container)
        return tag

    def push(self, registry: RegistryService, name: str, *, source: str = "alpine:latest", private: bool = False) -> str:
        """Put `source` into a registry as `name` and forget it here; returns the full name to pull by."""
        full = f"{registry.private if private else registry.address}/{name}"
        config: list[str] = []
        if private:
            folder = STATE.parent / f"docker-config-{uuid.uuid4().hex[:8]}"
            config = ["--config", str(folder)]
            login = ["login", "-u", registry.user, "--password-stdin", registry.private]
            self.command(*config, *login, data=registry.password.encode())
        self.command("tag", source, full)
        self.command(*config, "push", "-q", full)
        self.command("rmi", "-f", full)
        if private:
            (folder / "config.json").unlink()
            folder.rmdir()
        return full


@dataclass(frozen=True, slots=True)
class ApptainerService:
    """A real apptainer, in a folder of its own that PATH must name first."""

    folder: str
    version: str

    def path(self) -> str:
        """PATH with it."""
        return f"{self.folder}{os.pathsep}{os.environ['PATH']}"


KINDS: dict[str, type] = {
    "docker": DockerService,
    "s3": S3Service,
    "azurite": AzuriteService,
    "gcs": GcsService,
    "webdav": WebdavService,
    "registry": RegistryService,
    "slurm": SlurmService,
    "apptainer": ApptainerService,
}


def service(name: str) -> Any:
    """The running service `name`, as its dataclass; without it the test fails in CI and is skipped elsewhere."""
    state = json.loads(STATE.read_text()) if STATE.is_file() else {}
    if name not in state:
        _missing(name, state.get("unavailable", {}).get(name, "not started"))
    return KINDS[name](**{key: value for key, value in state[name].items() if key != "processes"})


def _missing(name: str, reason: str) -> NoReturn:
    text = f"service {name}: {reason.splitlines()[0]}; start it with: .venv/bin/python build/services.py up {name}"
    if IN_CI:
        pytest.fail(text, pytrace=False)
    pytest.skip(text)


def _beside_python(name: str) -> Path:
    import sys

    beside = Path(sys.executable).parent / name
    return beside if beside.is_file() else Path(name)
