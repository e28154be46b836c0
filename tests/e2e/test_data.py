"""The guide's lines on data with real containers and a real S3 server (contract, sections 4 to 8)."""

from __future__ import annotations

import io
import os
import tarfile
import uuid
from collections.abc import Iterator

import pytest
from tests.lib.proxy import Proxy
from tests.lib.services import DockerService, S3Service
from tests.lib.site import Site


@pytest.fixture(scope="module")
def proxy(s3_service: S3Service) -> Iterator[Proxy]:
    with Proxy(s3_service.endpoint) as made:
        yield made


@pytest.fixture(scope="module")
def bucket(s3_service: S3Service) -> str:
    return s3_service.new_bucket()


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv: list[str], s3_service: S3Service, docker_service: DockerService, proxy: Proxy) -> Iterator[Site]:
    rclone = {"s3": s3_service.rclone() | {"endpoint": proxy.url}}
    with Site(tmp_path_factory.mktemp("data"), scitq_argv, rclone=rclone, worker={"min_free_disk": "10M", "network": "none"}) as made:
        made.agent(concurrency=4, env={"DOCKER_HOST": docker_service.host})
        yield made


@pytest.fixture(scope="module")
def user_image(docker_service: DockerService) -> Iterator[str]:
    tag = docker_service.derived(f"scitq-user-{uuid.uuid4().hex[:8]}", ["USER 1000"])
    yield tag
    docker_service.command("rmi", "-f", tag)


def contents(s3_service: S3Service, bucket: str, prefix: str) -> dict[str, bytes]:
    client = s3_service.client()
    found = client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {entry["Key"][len(prefix) :]: client.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read() for entry in found}


def test_l83_l88_l98_l117_the_guides_lines(site, s3_service, bucket, tmp_path):
    (tmp_path / "mybinary").write_bytes(b'#!/bin/sh\n[ $# = 0 ] && echo "I run" || { cat /resource/ref/data "$2" > "$4"; }\n')
    with tarfile.open(tmp_path / "reference_data.tgz", "w:gz") as opened:
        info = tarfile.TarInfo("ref/data")
        info.size = 4
        opened.addfile(info, io.BytesIO(b"ref+"))
    (tmp_path / "input1.dat").write_bytes(b"input")
    base = f"s3://{bucket}"
    site.ok(f"file copy mybinary {base}/resource/mybinary", cwd=tmp_path)
    site.ok(f"file copy reference_data.tgz {base}/resource/reference_data.tgz", cwd=tmp_path)
    site.ok(f"file copy input1.dat {base}/data/input1.dat", cwd=tmp_path)
    task = site.create("/resource/mybinary", f"--resource {base}/resource/mybinary", container="alpine")
    assert site.wait_status(task, "SF") == "S"
    assert site.output(task) == "I run\n"
    task = site.create(
        "/resource/mybinary -i /input/input1.dat -o /output/output.dat",
        [
            *("--resource", f"{base}/resource/mybinary", "--resource", f"{base}/resource/reference_data.tgz|untar"),
            *("--input", f"{base}/data/*.dat", "--output", f"{base}/results/mybinary-input1/"),
        ],
        container="alpine",
    )
    assert site.wait_status(task, "SF") == "S"
    assert contents(s3_service, bucket, "results/") == {"mybinary-input1/output.dat": b"ref+input"}
    task = site.create(
        "cd /input; find . -type f", ["--shell", "sh", "--input", f"{base}/", "--input", f"{base}/data|mv:d"], container="alpine"
    )
    assert site.wait_status(task, "SF") == "S"
    names = "data/input1.dat", "resource/mybinary", "resource/reference_data.tgz", "results/mybinary-input1/output.dat", "d/input1.dat"
    assert sorted(site.output(task).split()) == sorted(f"./{name}" for name in names)


def test_res_05_res_06_resources_are_read_only_for_root_and_fetched_once(site, s3_service, bucket, proxy):
    data = os.urandom(1_500_000)
    s3_service.client().put_object(Bucket=bucket, Key="shared/big", Body=data)
    hostile = "exec 2>/dev/null; chmod 777 /resource /resource/big; echo x > /resource/big; rm /resource/big; touch /resource/new; "
    check = "md5sum < /resource/big"
    uri = f"s3://{bucket}/shared/big"
    tasks = [
        site.create(hostile + check, ["--shell", "sh", "--resource", uri, "--resource", f"{uri}|mv:again"], container="alpine")
        for _ in range(8)
    ]
    assert [site.wait_status(task, "SF") for task in tasks] == ["S"] * 8
    assert len({site.output(task).splitlines()[-1] for task in tasks}) == 1
    assert proxy.count("GET", "/shared/big") == 1
    task = site.create("md5sum /resource/big", f"--resource {uri}", container="alpine")
    site.wait_status(task, "S")
    import hashlib

    assert hashlib.md5(data).hexdigest() in site.output(task)
    assert proxy.count("GET", "/shared/big") == 1


def test_in_13_out_07_any_user_of_an_image_reads_writes_and_leaves_closed_files(site, s3_service, bucket, user_image):
    client = s3_service.client()
    client.put_object(Bucket=bucket, Key="in/d/x", Body=b"1")
    command = "id -u; echo 2 >> /input/d/x; echo 3 > /input/d/y; cp -r /input/d /output/d; chmod 600 /output/d/x; chmod 555 /output/d"
    for image in (user_image, "alpine"):
        out = f"out-{image.partition('-')[0]}"
        more = ["--shell", "sh", "--input", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/{out}"]
        task = site.create(command, more, container=image)
        assert site.wait_status(task, "SF") == "S"
        assert contents(s3_service, bucket, f"{out}/") == {"d/x": b"12\n", "d/y": b"3\n"}
    assert client.get_object(Bucket=bucket, Key="in/d/x")["Body"].read() == b"1"


def test_out_08_a_container_gets_nothing_of_the_hosts_files(site, s3_service, bucket):
    command = (
        "cd /output; echo mine > own; ln -s /output/own abs; ln -s own rel; ln -s /etc/shadow shadow; ln -s ../../.. up; "
        "ln -s /resource res; mkfifo pipe; mknod null c 1 3; exit 3"
    )
    task = site.create(command, ["--shell", "sh", "--output", f"s3://{bucket}/links"], container="alpine")
    assert site.wait_status(task, "SF") == "F"
    assert site.show(task)["row"]["exit_status"] == 3
    assert contents(s3_service, bucket, "links/") == dict.fromkeys(("own", "abs", "rel"), b"mine\n")


def test_fc_06_a_large_file_goes_in_parts_straight_to_the_storage(site, s3_service, bucket, proxy, tmp_path):
    (tmp_path / "large").write_bytes(os.urandom(1 << 20) * 70)
    site.ok(f"file copy large s3://{bucket}/large", cwd=tmp_path)
    assert proxy.count("PUT", "uploadId=") >= 2
    site.ok(f"file copy s3://{bucket}/large back", cwd=tmp_path)
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    rows = site.ok(f"file list s3://{bucket}/large --json").json
    assert rows[0]["size"] == 70 << 20
    site.ok(f"file delete s3://{bucket}/large")
    site.fails(f"file copy s3://{bucket}/large gone", 5, cwd=tmp_path)
    assert not (tmp_path / "gone").exists()
