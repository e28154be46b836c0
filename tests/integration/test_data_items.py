"""The contract's items on inputs, resources, outputs and actions that have no other test with real processes (sections 4 to 7)."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from tests.lib.mounts import tmpfs
from tests.lib.site import Site, wait_until

pytestmark = pytest.mark.xdist_group("data_items")

LISTED = "cd {} && find . -mindepth 1 | LC_ALL=C sort"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, scitq_argv: list[str]) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("items")
    (folder / "disk").mkdir()
    rclone = {name: {"type": "local", "root": str(folder / name)} for name in ("disk", "other-Disk_2.x")}
    with Site(folder, scitq_argv, rclone=rclone, worker={"min_free_disk": "1M", "cache_size": "2M", "max_extract_files": 1000}) as made:
        made.agent(concurrency=4)
        yield made


def put(site: Site, name: str, data: bytes = b"data", storage: str = "disk") -> str:
    """Store an object; its URI."""
    path = site.folder / storage / "b" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return f"{storage}://b/{name}"


def tar(members: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            opened.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def zipped(members: dict[str, bytes], mode: int = 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for name, data in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            opened.writestr(info, data)
    return buffer.getvalue()


def start(site: Site, command: str, *more: str) -> int:
    return site.create(command, ["--shell", "sh", *more])


def done(site: Site, command: str, *more: str) -> str:
    """The output of a task that must succeed."""
    task = start(site, command, *more)
    assert site.wait_status(task, "SF") == "S", (site.show(task), site.output(task))
    return site.output(task)


def failure(site: Site, *more: str) -> str:
    """The reason of a task that must fail before its command runs."""
    task = start(site, "echo it ran", *more)
    assert site.wait_status(task, "SF") == "F"
    assert "it ran\n" not in site.output(task)
    return str(site.show(task)["row"]["reason"])


def names(text: str) -> list[str]:
    return [line.removeprefix("./") for line in text.splitlines()]


def test_res_03_scripts_and_programs_run_though_storages_keep_no_mode(site: Site) -> None:
    script, program = put(site, "bin/script", b"#!/bin/sh\necho script\n"), put(site, "bin/program", Path("/bin/echo").read_bytes())
    text = put(site, "bin/text", b"only text")
    flags = [word for uri in (script, program, text) for word in ("--resource", uri)]
    assert (
        done(site, "$RESOURCE/script; $RESOURCE/program program; test -x $RESOURCE/text || echo text", *flags) == "script\nprogram\ntext\n"
    )


def test_res_07_a_task_sees_its_own_resources_only(site: Site) -> None:
    one, two = put(site, "own/one"), put(site, "own/two")
    tasks = [start(site, LISTED.format("$RESOURCE"), "--resource", uri) for uri in (one, two)]
    for task in tasks:
        site.wait_status(task, "S")
    assert [names(site.output(task)) for task in tasks] == [["one"], ["two"]]


def test_res_10_the_cache_is_bounded_and_the_least_recently_used_goes_first(site: Site) -> None:
    uris = [put(site, f"full/{number}", os.urandom(900_000)) for number in range(3)]
    worker = site.workers()[0]["id"]
    for number in (0, 1, 0, 2):
        assert done(site, f"wc -c < $RESOURCE/{number}", "--resource", uris[number]).strip() == "900000"

    def kept() -> list[str]:
        return [entry["uri"] for entry in site.ok(f"worker cache list --worker-id {worker} --json").json]

    wait_until(lambda: uris[1] not in kept(), "the eviction")
    assert {uris[0], uris[2]} <= set(kept())
    for number in (0, 2):
        task = start(site, "true", "--resource", uris[number])
        site.wait_status(task, "S")
        assert not site.show(task)["use"].get("downloaded_bytes")


def test_res_11_one_archive_is_two_resources_with_and_without_its_action(site: Site) -> None:
    archive = put(site, "key/a.tar", tar({"member": b"inside"}))
    for _ in range(2):
        assert names(done(site, LISTED.format("$RESOURCE"), "--resource", archive)) == ["a.tar"]
        assert names(done(site, LISTED.format("$RESOURCE"), "--resource", f"{archive}|untar")) == ["member"]


def test_res_12_two_resources_on_one_path_are_told_and_the_same_one_twice_is_merged(site: Site) -> None:
    one, two = put(site, "clash/x"), put(site, "clash/other/x")
    reason = failure(site, "--resource", one, "--resource", two)
    assert one in reason
    assert two in reason
    assert "|mv:" in reason
    assert names(done(site, LISTED.format("$RESOURCE"), "--resource", one, "--resource", one)) == ["x"]


def test_res_13_folders_patterns_and_files_are_mixed_with_inputs(site: Site) -> None:
    for name in ("mixed/folder/a", "mixed/folder/deep/b", "mixed/1.dat", "mixed/2.dat", "mixed/3.txt"):
        put(site, name)
    flags = ["--resource", "disk://b/mixed/folder/", "--resource", "disk://b/mixed/*.dat", "--input", "disk://b/mixed/3.txt"]
    found = done(site, f"({LISTED.format('$RESOURCE')}); echo; {LISTED.format('$INPUT')}", *flags)
    resources, inputs = found.split("\n\n")
    assert names(resources) == ["1.dat", "2.dat", "a", "deep", "deep/b"]
    assert names(inputs) == ["3.txt"]


def test_res_14_the_cache_may_be_a_file_system_of_its_own(site: Site) -> None:
    uri = put(site, "apart/x", os.urandom(200_000))
    with tmpfs(site.folder / "work1" / "cache", "50m"):
        agent = site.agent(concurrency=1, more="--name apart")
        worker = next(row["id"] for row in site.workers() if row["name"] == "apart")
        others = [row["id"] for row in site.workers() if row["name"] != "apart"]
        site.ok(["worker", "drain", *[word for each in others for word in ("--worker-id", str(each))]])
        try:
            for flag, folder in (("--resource", "$RESOURCE"), ("--input", "$INPUT")):
                assert done(site, f"wc -c < {folder}/x", flag, uri).strip() == "200000"
        finally:
            site.ok(["worker", "resume", *[word for each in others for word in ("--worker-id", str(each))]])
            site.ok(f"worker delete --worker-id {worker}")
            agent.wait(60)
            site.agents.remove(agent)


def test_in_03_five_hundred_inputs(site: Site) -> None:
    flags = [word for number in range(500) for word in ("--input", put(site, f"many/{number}", str(number).encode()))]
    assert done(site, "cat $INPUT/0 $INPUT/499; ls $INPUT | wc -l", *flags).replace(" ", "") == "0499500\n"


def test_in_05_without_its_slash_an_object_comes_first_then_a_folder_then_an_error(site: Site) -> None:
    put(site, "slash/object", b"object")
    put(site, "slash/folder/x")
    assert names(done(site, LISTED.format("$INPUT"), "--input", "disk://b/slash/object")) == ["object"]
    assert names(done(site, LISTED.format("$INPUT"), "--input", "disk://b/slash/folder")) == names(
        done(site, LISTED.format("$INPUT"), "--input", "disk://b/slash/folder/")
    )
    assert "disk://b/slash/none" in failure(site, "--input", "disk://b/slash/none")
    root = site.folder / "disk" / "whole"
    (root / "sub").mkdir(parents=True)
    (root / "sub" / "x").write_bytes(b"1")
    for uri in ("disk://whole", "disk://whole/"):
        assert names(done(site, LISTED.format("$INPUT"), "--input", uri)) == ["sub", "sub/x"]


def test_out_01_out_02_all_of_the_output_goes_to_a_folder_where_other_files_stay(site: Site) -> None:
    put(site, "out/kept", b"old")
    put(site, "out/replaced", b"old")
    writes = "mkdir -p a/.b && : > a/empty && echo dot > .dot && echo odd > 'a/.b/x [1] é\n*.dat' && echo new > replaced"
    done(site, f"cd $OUTPUT && {writes}", "--output", "disk://b/out")
    root = site.folder / "disk" / "b" / "out"
    stored = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert stored == {"kept": b"old", "replaced": b"new\n", "a/empty": b"", ".dot": b"dot\n", "a/.b/x [1] é\n*.dat": b"odd\n"}
    done(site, "echo x > $OUTPUT/x", "--output", "disk://b/out-made/with/slash/")
    assert (site.folder / "disk/b/out-made/with/slash/x").read_bytes() == b"x\n"


def test_out_06_without_an_output_the_content_is_dropped(site: Site) -> None:
    before = sorted(str(path) for path in (site.folder / "disk").rglob("*"))
    assert done(site, "echo x > $OUTPUT/dropped; ls $OUTPUT") == "dropped\n"
    assert sorted(str(path) for path in (site.folder / "disk").rglob("*")) == before
    flags = ["--output", "disk://b/o", "--output", "disk://b/p"]
    assert "twice" in site.fails(["task", "create", "--container", "bare", "--command", "true", *flags], 2).err


def test_uri_01_the_scheme_is_the_name_of_the_storage(site: Site) -> None:
    one, two = put(site, "which", b"one "), put(site, "which", b"two", "other-Disk_2.x")
    assert done(site, "cat $INPUT/which $RESOURCE/which", "--input", one, "--resource", two) == "one two"


def test_uri_03_uri_04_actions_on_inputs_and_resources_in_any_order(site: Site) -> None:
    archive = put(site, "chain/a.tar.gz", gzip.compress(tar({"m": b"inside"})))
    for flag, folder in (("--input", "$INPUT"), ("--resource", "$RESOURCE")):
        for chain, found in (
            ("|untar|mv:x", ["x", "x/m"]),
            ("|mv:x|untar", ["x", "x/m"]),
            ("|gunzip|untar", ["m"]),
            ("|gunzip", ["a.tar"]),
        ):
            assert names(done(site, LISTED.format(folder), flag, archive + chain)) == found
    for refused in ("|", "||untar", "|untar|", "|mv:"):
        site.fails(["task", "create", "--container", "bare", "--command", "true", "--input", archive + refused], 2)
    site.fails(["task", "create", "--container", "bare", "--command", "true", "--output", "disk://b/o|mv:x"], 2)


def test_uri_05_actions_hold_for_each_file_of_a_folder_or_pattern(site: Site) -> None:
    for name in ("one", "two"):
        put(site, f"each/{name}.gz", gzip.compress(name.encode()))
    for uri in ("disk://b/each/*.gz|gunzip|mv:plain", "disk://b/each/|mv:plain|gunzip"):
        assert done(site, f"{LISTED.format('$INPUT')}; cat plain/one plain/two", "--input", uri).endswith("plain/one\n./plain/two\nonetwo")


def test_unt_01_unt_02_unt_05_every_kind_of_archive_by_content_its_modes_kept_and_itself_consumed(site: Site) -> None:
    plain = tar({"d/run": b"#!/bin/sh\necho ran\n"}, 0o755)
    kinds = {"tar": plain, "gz": gzip.compress(plain), "bz2": bz2.compress(plain), "xz": lzma.compress(plain)}
    kinds["zip"] = zipped({"d/run": b"#!/bin/sh\necho ran\n"}, 0o755)
    kinds["zst"] = zstandard.compress(plain)
    for kind, data in kinds.items():
        # The name lies about the kind.
        uri = put(site, f"kinds/{kind}.dat", data)
        found = done(site, f"{LISTED.format('$RESOURCE')}; d/run", "--resource", f"{uri}|untar")
        assert names(found) == ["d", "d/run", "ran"], kind


def test_unt_03_a_member_with_the_archives_own_name_survives(site: Site) -> None:
    uri = put(site, "same/a.tar", tar({"a.tar": b"a member", "b": b"2"}))
    assert done(site, f"{LISTED.format('$INPUT')}; cat a.tar", "--input", f"{uri}|untar") == "./a.tar\n./b\na member"


def hostile_archives(outside: Path) -> dict[str, bytes]:
    """Archives whose members want to lie outside, by what they try."""
    found = {name: tar({member: b"hostile"}) for name, member in (("up", "../../escaped"), ("absolute", str(outside / "escaped")))}
    for kind, link_type, target, inside in (
        ("link-then-file", tarfile.SYMTYPE, str(outside), "link/escaped"),
        ("relative-link", tarfile.SYMTYPE, "../../..", "link/escaped"),
        ("hard-link", tarfile.LNKTYPE, str(outside / "secret"), ""),
        ("device", tarfile.CHRTYPE, "", ""),
    ):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as opened:
            link = tarfile.TarInfo("link")
            link.type, link.linkname, link.devmajor, link.devminor = link_type, target, 1, 3
            opened.addfile(link)
            if inside:
                info = tarfile.TarInfo(inside)
                info.size = 7
                opened.addfile(info, io.BytesIO(b"hostile"))
        found[kind] = buffer.getvalue()
    found["zip-up"] = zipped({"../../escaped": b"hostile"})
    found["zip-drive"] = zipped({"C:\\escaped": b"hostile", "..\\..\\escaped": b"hostile"})
    return found


def test_unt_04_nothing_of_a_hostile_archive_lands_outside(site: Site) -> None:
    outside = site.folder / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    made = [
        (kind, start(site, "cat $INPUT/link; find $INPUT -type c -o -type b", "--input", put(site, f"hostile/{kind}", data) + "|untar"))
        for kind, data in hostile_archives(outside).items()
    ]
    for kind, task in made:
        site.wait_status(task, "SF")
        text = site.output(task)
        assert "secret" not in text.replace(str(outside / "secret"), ""), kind
        assert "/input/link\n" not in text, kind
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"secret": "secret"}
    assert not [path for path in site.folder.rglob("escaped") if "/input/" not in str(path)]


def test_unt_04_a_member_that_is_setuid_is_not(site: Site) -> None:
    uri = put(site, "hostile/setuid", tar({"s": b"#!/bin/sh\n"}, 0o6755))
    assert done(site, "find $RESOURCE/s $INPUT/s -perm /6000", "--resource", f"{uri}|untar", "--input", f"{uri}|untar") == ""


def test_unt_06_what_cannot_be_unpacked_fails_the_task_and_leaves_nothing_in_the_cache(site: Site) -> None:
    whole = gzip.compress(tar({"x": os.urandom(60_000)}))
    encrypted = bytearray(zipped({"x": b"data"}))
    for magic, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[encrypted.find(magic) + offset] |= 1
    cases = {
        "truncated": (whole[: len(whole) // 2], "truncated"),
        "corrupt": (whole[:2000] + os.urandom(2000) + whole[4000:], "corrupt"),
        "encrypted": (bytes(encrypted), "encrypted"),
        "text": (b"this is no archive", "archive"),
        "empty": (b"", "archive"),
        "many": (tar({str(number): b"" for number in range(1500)}), "1000"),
    }
    made = {kind: start(site, "true", "--resource", put(site, f"bad/{kind}", data) + "|untar") for kind, (data, _) in cases.items()}
    for kind, task in made.items():
        assert site.wait_status(task, "SF") == "F", kind
        reason = site.show(task)["row"]["reason"]
        assert f"disk://b/bad/{kind}" in reason, reason
        assert cases[kind][1] in reason, reason
    worker = site.workers()[0]["id"]
    assert not [entry for entry in site.ok(f"worker cache list --worker-id {worker} --json").json if "/bad/" in entry["uri"]]


def test_unt_07_members_of_two_archives_on_one_path_are_told(site: Site) -> None:
    one, two = (put(site, f"two/{name}.tar", tar({"same": name.encode()})) for name in ("one", "two"))
    reason = failure(site, "--input", f"{one}|untar", "--input", f"{two}|untar")
    assert one in reason
    assert two in reason
    assert "|mv:" in reason


def test_gz_01_names_of_what_was_unzipped(site: Site) -> None:
    data = gzip.compress(tar({"m": b"1"}))
    for name, becomes in (("x.gz", "x"), ("plain", "plain"), ("y.tgz", "y.tar"), ("Z.GZ", "Z")):
        assert names(done(site, LISTED.format("$INPUT"), "--input", put(site, f"gz/{name}", data) + "|gunzip")) == [becomes]


def test_gz_02_all_members_come_and_what_is_cut_or_no_gzip_fails(site: Site) -> None:
    several = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert done(site, "cat $INPUT/s", "--input", put(site, "gz/s.gz", several) + "|gunzip") == "one two"
    for name, data in (("cut.gz", several[:-4]), ("text.gz", b"no gzip at all"), ("garbage.gz", several + b"garbage")):
        reason = failure(site, "--input", put(site, f"gz/{name}", data) + "|gunzip")
        assert f"disk://b/gz/{name}" in reason


def test_mv_01_mv_02_a_subfolder_that_leaves_the_root_alone(site: Site) -> None:
    one, two = put(site, "mv/one/x", b"root "), put(site, "mv/two/x", b"below")
    for flag, folder in (("--input", "$INPUT"), ("--resource", "$RESOURCE")):
        flags = [flag, one, flag, f"{two}|mv:deep/er"]
        assert done(site, f"cat {folder}/x {folder}/deep/er/x", *flags) == "root below"


def test_mv_03_relative_paths_are_kept_below_the_subfolder(site: Site) -> None:
    for name in ("a/x", "b/x", "top"):
        put(site, f"kept/{name}")
    assert names(done(site, LISTED.format("$INPUT"), "--input", "disk://b/kept/|mv:s")) == ["s", "s/a", "s/a/x", "s/b", "s/b/x", "s/top"]
    assert names(done(site, LISTED.format("$INPUT"), "--input", "disk://b/kept/*|mv:s")) == ["s", "s/a", "s/a/x", "s/b", "s/b/x", "s/top"]


def test_mv_04_mv_05_mv_06_targets_that_are_refused_and_those_that_mean_the_same(site: Site) -> None:
    uri = put(site, "target/x")
    for target in ("..", "../y", "a/../b", "a/..", "/etc", "//x", "", ".", "./", "./."):
        ran = site.fails(["task", "create", "--container", "bare", "--command", "true", "--input", f"{uri}|mv:{target}"], 2)
        assert "mv:" in ran.err, ran
    for target in ("./s/", "s", "s/", "./s", "s/."):
        assert names(done(site, LISTED.format("$INPUT"), "--input", f"{uri}|mv:{target}")) == ["s", "s/x"]


def test_mv_06_never_through_a_link_that_another_archive_made(site: Site) -> None:
    outside = site.folder / "beyond"
    outside.mkdir()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as opened:
        link = tarfile.TarInfo("s")
        link.type, link.linkname = tarfile.SYMTYPE, str(outside)
        opened.addfile(link)
    archive, file = put(site, "through/a.tar", buffer.getvalue()), put(site, "through/x")
    for flag in ("--input", "--resource"):
        site.wait_status(start(site, "true", flag, f"{archive}|untar", flag, f"{file}|mv:s"), "SF")
    assert list(outside.iterdir()) == []
