"""Contract CLI-1 to CLI-8, against the real command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.lib.site import SOURCE, Shell, Site, clean_environment
from tests.lib.terminal import Terminal

from scitq.commands import table

pytestmark = pytest.mark.xdist_group("cli_words")


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("words"), scitq_argv) as site:
        yield site


@pytest.fixture
def alone(scitq_argv, tmp_path) -> Shell:
    """No server, no token."""
    return Shell(scitq_argv, clean_environment(tmp_path) | {"SCITQ_SERVER": "192.0.2.1:5"})


def test_cli_01_unknown_words_get_suggestions(alone):
    for words, suggestion in (("tsak list", "task"), ("task lst", "list"), ("user toke list", "token"), ("task list --limt 3", "--limit")):
        ran = alone.fails(words, 2)
        assert suggestion in ran.err
        assert ran.out == ""


def test_cli_01_an_object_without_action_shows_its_help(alone):
    for words in ("task", "user", "user token", ""):
        ran = alone.fails(words, 2)
        assert "usage:" in ran.err
        assert ran.out == ""
    assert "change-password" in alone.fails("user", 2).err


def test_cli_02_help_at_three_levels(alone):
    for words in ("", "task", "task create", "user token", "serve"):
        shown = {flag: alone.ok(f"{words} {flag}".strip()) for flag in ("--help", "-h", "-help")}
        texts = {ran.out for ran in shown.values()}
        assert len(texts) == 1
        assert texts.pop().startswith("usage: scitq")
        assert all(ran.err == "" for ran in shown.values())
    assert alone.ok("--version").out.startswith("scitq ")


def test_cli_02_every_flag_shows_its_default(alone):
    text = alone.ok("task list --help").out
    assert "(default: 20)" in text
    options = [line for line in text.splitlines() if line.startswith("  --")]
    assert len(options) > 15
    assert text.count("(default:") + text.count("repeatable; default:") >= len(options)


def test_cli_03_values_may_start_with_a_dash(site):
    for words in (["--command", "--version"], ["--command=--version"], ["--command", "-x -y"], ["--command", "--json"]):
        task = site.ok(["task", "create", "--hold", "--container", "bare", *words]).id
        wanted = words[1] if len(words) == 2 else words[0].partition("=")[2]
        assert site.show(task)["spec"]["command"] == wanted


def test_cli_04_no_abbreviations(alone):
    for words in ("task list --lim 3", "task create --cont x --command y", "task list --js"):
        assert "there is no option" in alone.fails(words, 2).err


def test_cli_05_twice_and_order(site, alone):
    assert "twice" in alone.fails("task list --limit 1 --limit 2", 2).err
    assert "twice" in alone.fails("task list --step 1 --step-id 2", 2).err
    assert "twice" in alone.fails("task list --json --json", 2).err
    words = ["task", "create", "--hold", "--container", "bare", "--command", "true"]
    task = site.ok([*words, "--env", "B=2", "--env", "A=1", "--label", "z=1", "--label", "y=2"]).id
    assert list(site.show(task)["spec"]["env"].items()) == [("B", "2"), ("A", "1")]


def test_cli_06_exit_statuses(site):
    site.fails("task show --id 999999", 5)
    task = site.create("true", "--hold")
    site.fails(f"task retry --id {task}", 6)
    other = site.shell("gina", "pw")
    other.fails(f"task cancel --id {task}", 7)
    site.fails(f"task wait --id {task} --timeout 0.2", 124)
    site.ok(f"task cancel --id {task}")
    site.fails(f"task wait --id {task}", 10)
    assert site.ok("task list").status == 0


def test_cli_07_json_and_quiet(site):
    task = site.create("echo json", "--name jay --hold")
    rows = site.ok("task list --json --name jay").json
    assert rows[0]["id"] == task
    assert {"id", "status", "name", "user", "command", "container", "exit_status", "worker_id", "labels"} <= set(rows[0])
    assert rows[0]["exit_status"] is None
    assert site.ok("task list --quiet --name jay").ids == [task]
    assert site.ok("task list --json --name nothing-like-it").json == []
    for words in ("worker list", "user list", "user token list", "worker events", "worker stats"):
        assert isinstance(site.ok(f"{words} --json").json, list)
        site.ok(f"{words} --quiet")
    assert "\x1b" not in site.ok("task list").out
    assert site.ok("--json task list --name jay").json == rows


def test_cli_07_quiet_prints_ids_and_nothing_where_there_are_none(site):
    task = site.create("true", "--hold")
    assert site.ok(f"task explain --id {task} --quiet").ids == [task]
    for words in ("ping", "status", "doctor"):
        assert site.ok(f"{words} --quiet").out == ""


def test_cli_07_every_action_ends_in_json_when_asked(site):
    shell = site.shell("jo", "pw")
    passwords = ["--old-password-file", "/dev/stdin", "--password-file", str(site.folder / "new")]
    (site.folder / "new").write_text("pw2")
    assert shell.ok(["user", "change-password", "--json", *passwords], stdin="pw").json == {"name": "jo"}
    assert shell.ok("logout --json").json == {"all": False}


def test_cli_08_a_full_disk_behind_stdout_is_told_in_words(site):
    for words in ("task list", "task list --json", "--help", "task create --help", "completion bash"):
        with Path("/dev/full").open("wb") as full:
            process = site.start(words, stdout=full)
            _, err = process.communicate(timeout=60)
        assert process.returncode == 1, words
        assert err.decode() == "scitq: stdout can't be written: No space left on device\n"


def test_cli_08_a_closed_pipe_is_silent(site):
    for _ in range(5):
        site.create("echo " + "x" * 2000, "--hold")
    script = f"{' '.join(site.argv)} task list | head -1"
    done = subprocess.run(["sh", "-c", script], env=site.environment, capture_output=True, check=False)
    assert done.stdout.startswith(b"ID")
    assert done.stdout.count(b"\n") == 1
    assert done.stderr == b""


def test_cli_08_unicode_in_the_c_locale(site):
    for locale in ({"LANG": "C", "LC_ALL": "C"}, {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}):
        task = site.ok(["task", "create", "--hold", "--container", "bare", "--command", "echo é→𝄞"], env=locale).id
        assert site.show(task)["spec"]["command"] == "echo é→𝄞"
        assert "é→𝄞" in site.ok(f"task list --id {task}", env=locale).out


def test_cli_08_control_characters_are_neutralised(site):
    task = site.ok(
        ["task", "create", "--hold", "--container", "bare", "--shell", "sh", "--command", "echo \x1b[31mred\n\techo \x07\r\u202e"]
    ).id
    line = site.ok(f"task list --id {task}").out
    assert "\x1b" not in line
    assert line.count("\n") == 2
    assert "\\x1b[31mred\\n\\techo \\x07\\r?" in line
    assert site.ok(f"task list --id {task} --json").json[0]["command"].startswith("echo \x1b[31m")


def test_cli_08_control_characters_are_neutralised_in_complaints_too(alone):
    ran = alone.fails(["task", "create", "--from-file", "x\x1b[31m\x9b1m"], 2)
    assert "x\\x1b[31m\\x9b1m can't be read" in ran.err
    assert "\nsee: scitq" in alone.fails(["task", "list", "--status", "\x1b"], 2).err, "lines stay lines"


@pytest.mark.parametrize(
    "words", ["task list --command", "file list", "login --password-stdin --user", "flavor list --filter", "ping --server"]
)
def test_cli_08_bytes_that_are_no_text_are_a_usage_error(site, words):
    ran = site.fails([*words.split(), os.fsdecode(b"a\xffb")], 2, stdin="x")
    assert "UTF-8" in ran.err or "'a" in ran.err
    assert "internal error" not in ran.err


def test_cli_08_a_token_or_a_line_that_is_no_text(site):
    assert "UTF-8" in site.fails("task list", 2, env={"SCITQ_TOKEN": os.fsdecode(b"\xff")}).err
    assert "stdin, line 1: no valid JSON" in site.fails("task create --from-file -", 2, stdin=b'{"command": "\xff"}\n').err


def test_cli_08_no_home(site):
    for home in (None, "/proc/nowhere"):
        assert site.ok("task list", env={"HOME": home, "XDG_RUNTIME_DIR": None}).status == 0


def test_cli_08_interrupted_is_130_without_traceback(site):
    task = site.create("true", "--hold")
    with Terminal([*site.argv, "task", "wait", "--id", str(task)], site.environment) as terminal:
        terminal.expect("waiting")
        terminal.type("\x03")
        status, out = terminal.end()
    assert status == 130
    assert out == ""
    assert "Traceback" not in terminal.seen


def test_cli_08_closed_streams(site):
    for closed in ("0<&-", "2>&-", "0<&- 2>&-"):
        done = subprocess.run(
            ["sh", "-c", f"{' '.join(site.argv)} task list {closed}"], env=site.environment, capture_output=True, check=False
        )
        assert done.returncode == 0, done
        assert done.stdout.startswith(b"ID")


def test_colour_only_on_a_terminal_that_wants_it(site):
    with Terminal([*site.argv, "task", "list"], site.environment | {"TERM": "xterm"}, is_stdout_terminal=True) as terminal:
        assert terminal.end()[0] == 0
    assert "\x1b[1m" in terminal.seen
    with Terminal([*site.argv, "task", "list"], site.environment | {"TERM": "xterm", "NO_COLOR": "1"}, is_stdout_terminal=True) as terminal:
        assert terminal.end()[0] == 0
    assert "\x1b" not in terminal.seen
    assert all(len(line) <= 80 for line in terminal.seen.replace("\r", "").split("\n"))


def test_top_draws_and_quits(site):
    assert "terminal" in site.fails("top", 2).err
    with Terminal([*site.argv, "top", "--interval", "0.2s"], site.environment | {"TERM": "xterm"}, is_stdout_terminal=True) as terminal:
        terminal.expect("workers")
        terminal.type("q")
        assert terminal.end()[0] == 0
        assert terminal.is_echoing()


def test_completion_completes(alone):
    script = alone.ok("completion bash").out
    check = 'COMP_WORDS=({0}); COMP_CWORD={1}; _scitq; echo "${{COMPREPLY[@]}}"'
    for words, number, wanted in (
        ("scitq ta", 1, "task"),
        ("scitq task cre", 2, "create"),
        ("scitq task create --conta", 3, "--container"),
        ("scitq user token cre", 3, "create"),
        ("scitq agent --runtime pod", 3, "podman"),
    ):
        done = subprocess.run(["bash", "-c", script + check.format(words, number)], capture_output=True, text=True, check=True)
        assert wanted in done.stdout.split(), (words, done)
    for shell in ("zsh", "fish"):
        text = alone.ok(f"completion {shell}").out
        assert all(command.path[-1] in text for command in table.COMMANDS)
    alone.fails("completion tcsh", 2)


def test_a_quick_command_imports_only_what_it_needs():
    code = "import sys; from scitq.cli.main import run; run(['task', 'list']); print(*sys.modules)"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE), "SCITQ_TOKEN": "t", "SCITQ_SERVER": "127.0.0.1:1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "refused" in done.stderr
    modules = done.stdout.split()
    messages = {name.rpartition(".")[2] for name in modules if name.startswith("scitq.protocol.messages.")}
    assert messages == {"task"}
    loaded = {name.partition(".")[0] for name in modules}
    assert not loaded & {
        "yaml",
        "rich",
        "boto3",
        "botocore",
        "apsw",
        "bcrypt",
        "docker",
        "asyncio",
        "tempfile",
        "shutil",
        "logging",
        "hashlib",
        "cryptography",
    }


def test_doctor_looks_at_this_machine(site, tmp_path):
    found = site.ok(["doctor", "--json", "--data-dir", str(tmp_path)]).json
    states = {one["what"]: one["state"] for one in found}
    assert states["server"] == states["login"] == states["clock"] == "ok"
    assert {"docker", "podman", "apptainer", "rclone", "slurm", "disk", "open files", "time service"} <= set(states)
    assert os.fspath(tmp_path) in site.ok(["doctor", "--data-dir", str(tmp_path)]).out


def doctored(alone, folder, **programs):
    """What doctor finds where PATH has nothing but these shell scripts."""
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    ran = alone.ok(["doctor", "--json", "--no-server", "--data-dir", str(folder)], env={"PATH": str(folder)})
    return {one["what"]: one for one in ran.json}


def test_doctor_names_what_is_absent_and_says_what_to_do(alone, tmp_path):
    found = doctored(alone, tmp_path / "empty")
    assert [found[name]["state"] for name in ("podman", "apptainer", "slurm")] == ["absent"] * 3
    assert "install Docker, podman or apptainer" in found["containers"]["advice"]


def test_doctor_asks_each_program(alone, tmp_path):
    found = doctored(
        alone, tmp_path / "well", singularity="echo singularity 3.8", podman="echo 4.3.1 false v1", sinfo="echo 3 nodes in main"
    )
    assert found["apptainer"]["detail"].startswith("singularity 3.8, ")
    assert found["podman"]["detail"] == "4.3.1, of root, cgroups v1"
    assert found["slurm"]["state"] == "ok"
    assert "containers" not in found

    found = doctored(
        alone, tmp_path / "ill", podman="echo no subuid ranges >&2; exit 125", docker="echo denied >&2; exit 1", sinfo="exit 1"
    )
    assert [found[name]["state"] for name in ("docker", "podman", "slurm", "containers")] == ["warning"] * 4
    assert found["podman"]["detail"] == "no subuid ranges"
    assert "/etc/subuid" in found["podman"]["advice"]
    assert "group docker" in found["docker"]["advice"]


def test_version_tells_what_it_is_made_of(alone):
    facts = alone.ok("version --verbose --json").json
    assert facts["version"]
    assert facts["python"].startswith("3.")
