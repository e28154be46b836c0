"""The user guide, typed by a user: a server, a worker with Docker, an S3 storage named `s3`, and the examples as printed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.lib.services import DockerService, S3Service
from tests.lib.site import Site, clean_environment

pytestmark = [pytest.mark.docker, pytest.mark.s3]


class Guide:
    """A site, a bucket, and a shell that types lines as the guide prints them."""

    def __init__(self, site: Site, s3: S3Service, bucket: str) -> None:
        self.site = site
        self.s3 = s3
        self.bucket = bucket
        self.folder = site.folder / "typed"
        self.folder.mkdir()
        programs = site.folder / "bin"
        programs.mkdir()
        words = " ".join(f"'{word}'" for word in site.argv)
        (programs / "scitq").write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        (programs / "scitq").chmod(0o755)
        self.environment = site.environment | {"PATH": f"{programs}:{site.environment['PATH']}"}

    def type(self, line: str) -> str:
        """Type a line of the guide, with its bucket; what it printed."""
        typed = line.replace("s3://bucket/", f"s3://{self.bucket}/")
        done = subprocess.run(
            ["sh", "-c", typed], env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, (typed, done)
        return done.stdout

    def run(self, line: str, status: str = "S") -> str:
        """Type a `task create`; the log of the task once it has ended in `status`."""
        task = int(self.type(line).split()[-1])
        self.site.wait_status(task, "SFX", deadline_s=120)
        assert self.site.status_of(task) == status, self.site.show(task)
        return self.site.output(task)

    def body(self, key: str) -> bytes:
        """An object of the bucket."""
        data: bytes = self.s3.client().get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return data

    def put(self, key: str, data: bytes) -> None:
        """Store an object in the bucket."""
        self.s3.client().put_object(Bucket=self.bucket, Key=key, Body=data)


@pytest.fixture(scope="module")
def guide(
    tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str], docker_service: DockerService, s3_service: S3Service
) -> Iterator[Guide]:
    assert docker_service.images
    with Site(tmp_path_factory.mktemp("guide"), scitq_argv, rclone={"s3": s3_service.rclone()}) as site:
        site.agent(concurrency=2)
        made = Guide(site, s3_service, s3_service.new_bucket("guide"))
        binary = b"#!/bin/sh\nwhile getopts i:o: name; do case $name in i) in=$OPTARG;; o) out=$OPTARG;; esac; done\n"
        binary += b'if [ -z "$in" ]; then echo "no input"; else tr a-z A-Z < "$in" > "$out"; ls /resource > "$out.resources"; fi\n'
        (made.folder / "mybinary").write_bytes(binary)
        made.put("data/input1.dat", b"some data\n")
        yield made


def test_cre_05_hello_world(guide: Guide) -> None:
    assert guide.run("""scitq task create --container alpine --command 'echo "hello world"'""") == "hello world\n"


def test_cre_06_without_a_shell_nothing_is_interpreted(guide: Guide) -> None:
    line = """scitq task create --container alpine --command 'echo "hello world"|tr "h" "H"'"""
    assert guide.run(line) == "hello world|tr h H\n"


def test_cre_07_with_a_shell_it_is(guide: Guide) -> None:
    line = """scitq task create --container alpine --shell sh --command 'echo "hello world"|tr "h" "H"'"""
    assert guide.run(line) == "Hello world\n"


def test_cre_08_python_of_two_lines(guide: Guide) -> None:
    line = """scitq task create --container python:3.12 --shell python --command "print('Hello world')
print('Python rules!')\""""
    assert guide.run(line) == "Hello world\nPython rules!\n"


def test_in_01_a_binary_an_input_and_an_output(guide: Guide) -> None:
    guide.type("scitq file copy mybinary s3://bucket/resource/mybinary")
    assert (
        guide.run('scitq task create --resource s3://bucket/resource/mybinary --container alpine --command "/resource/mybinary"')
        == "no input\n"
    )
    guide.run(
        "scitq task create --resource s3://bucket/resource/mybinary --input s3://bucket/data/input1.dat"
        ' --output s3://bucket/results/mybinary-input1/ --container alpine --command "/resource/mybinary -i /input/input1.dat -o /output/output.dat"'
    )
    assert guide.body("results/mybinary-input1/output.dat") == b"SOME DATA\n"
    assert guide.body("data/input1.dat") == b"some data\n"


def test_unt_01_an_archive_as_a_resource(guide: Guide) -> None:
    guide.type("scitq file copy mybinary s3://bucket/resource/mybinary")
    guide.type("mkdir -p ref/deep && echo one > ref/a.txt && echo two > ref/deep/b.txt && tar czf reference_data.tgz ref")
    guide.type("scitq file copy reference_data.tgz s3://bucket/resource/reference_data.tgz")
    guide.run(
        "scitq task create --resource s3://bucket/resource/mybinary --resource 's3://bucket/resource/reference_data.tgz|untar'"
        " --input s3://bucket/data/input1.dat --output s3://bucket/results/with-reference/ --container alpine"
        ' --command "/resource/mybinary -i /input/input1.dat -o /output/output.dat"'
    )
    assert guide.body("results/with-reference/output.dat.resources") == b"mybinary\nref\n"


def test_lst_the_list_and_its_filters(guide: Guide) -> None:
    task = guide.site.create("echo findable_word", container="alpine")
    guide.site.wait_status(task, "S")
    assert "findable_word" in guide.type("scitq task list")
    assert "findable_word" in guide.type("scitq task list --status S --command findable_word --limit 5 --offset 0")
    assert "findable_word" in guide.type("scitq task list --worker-id 1 --show-hidden")


def test_rty_a_failed_task_is_retried_with_three_more(guide: Guide) -> None:
    task = guide.site.create("false", container="alpine")
    guide.site.wait_status(task, "F")
    new = int(guide.type(f"scitq task retry --id {task} --retry 3").split()[-1])
    guide.site.fails(f"task wait --id {new}", 10)
    chain = guide.site.show(new)["chain"]
    assert len(chain) == 5
    assert guide.type(f"scitq task output --id {task}") == guide.site.ok(f"task output --id {task}").out


def test_flv_and_worker_commands_of_the_guide(guide: Guide) -> None:
    guide.type("scitq flavor list")
    guide.type("scitq flavor list --filter 'cpu>32:mem>=10:disk<1000'")
    guide.type("scitq flavor list --limit 3 --filter 'provider~%azure%:region~%swed%:eviction<50:gpumem>=10:gpu~%Tesla%'")
    shown = guide.type("scitq worker list")
    assert "local.local" in shown
    assert "agent0" in shown
    assert "CPU" in guide.type("scitq worker stats --worker-id 1 --worker-id 1").upper()


def test_cli_02_help_as_the_guide_says_it_without_a_server(guide: Guide) -> None:
    nowhere = (
        guide.environment | clean_environment(guide.folder / "nobody") | {"PATH": guide.environment["PATH"], "SCITQ_SERVER": "127.0.0.1:1"}
    )
    for line in ("scitq --help", "scitq task --help", "scitq task create -help", "scitq worker deploy -h"):
        done = subprocess.run(["sh", "-c", line], env=nowhere, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0
        assert "usage" in done.stdout.lower()
        assert done.stderr == ""


def test_auth_07_the_line_of_the_guide_without_export(guide: Guide, tmp_path: Path) -> None:
    environment = {name: value for name, value in guide.environment.items() if name != "SCITQ_TOKEN"}
    (tmp_path / "password").write_text("correct horse")
    (tmp_path / "password").chmod(0o600)
    line = f"SCITQ_TOKEN=$(scitq login --user admin --password-file {tmp_path}/password) && scitq task list --limit 1"
    done = subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=False, start_new_session=True
    )
    assert done.returncode == 0, done
