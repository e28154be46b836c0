"""scitq in a minute: a server, a worker and three tasks with data, all in a temporary folder; stops and removes what it started.

No configuration file is used: `scitq serve` makes itself a private default. Tasks run in containers when Docker answers and has
(or can get) the image `alpine`, else directly on this machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType
from typing import Any

IMAGE = "alpine"
LETTERS = {
    "W": "waiting", "P": "pending", "A": "assigned", "C": "accepted", "D": "downloading", "O": "on hold", "R": "running", "U": "uploading",
    "V": "uploading after a failure", "S": "succeeded", "F": "failed", "Z": "suspended", "X": "cancelled", "I": "inactive",
}  # fmt: skip
WORDS = "pear\napple\nfig\napple\npear\napple\n"
GREETER = '#!/bin/sh\nfor n in 1 2 3; do echo "step $n of 3"; sleep 1; done\n'


class Demo:
    """The demonstration's folder, environment and processes."""

    def __init__(self) -> None:
        self.begin = time.monotonic()
        self.folder = Path(tempfile.mkdtemp(prefix="scitq-demo-"))
        self.children: list[tuple[str, subprocess.Popen[bytes]]] = []
        home = self.folder / "home"
        home.mkdir(mode=0o700)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SCITQ_", "XDG_"))}
        kept.setdefault("DOCKER_CONFIG", str(Path.home() / ".docker"))
        self.port = _two_ports()
        self.env = kept | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(home),
            "SCITQ_SERVER": f"127.0.0.1:{self.port}",
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '/usr/bin:/bin')}",
        }

    def step(self, text: str) -> None:
        print(f"\n--- {text}  ({time.monotonic() - self.begin:.0f} s)", flush=True)

    def scitq(self, *words: str, shown: bool = True, check: bool = True) -> str:
        """Run a client command as a user would, its command line printed first; returns its stdout."""
        if shown:
            print("$ scitq " + " ".join(word if word.replace("-", "a").isalnum() else _quoted(word) for word in words), flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "scitq", *words], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            raise SystemExit(f"scitq {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}{self.logs()}")
        return done.stdout

    def start(self, name: str, *words: str) -> None:
        """Start a daemon, its log in the folder."""
        print("$ scitq " + " ".join(words) + " &", flush=True)
        with (self.folder / f"{name}.log").open("wb") as to:
            child = subprocess.Popen(
                [sys.executable, "-m", "scitq", *words],
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=to,
                stderr=to,
                start_new_session=True,
            )
        self.children.append((name, child))

    def until(self, what: str, ready: Any, timeout_s: float = 60) -> None:
        deadline = time.monotonic() + timeout_s
        while not ready():
            for name, child in self.children:
                if child.poll() is not None:
                    raise SystemExit(f"scitq {name} ended with {child.returncode}{self.logs()}")
            if time.monotonic() > deadline:
                raise SystemExit(f"{what}: not within {timeout_s:.0f} s{self.logs()}")
            time.sleep(0.1)

    def logs(self) -> str:
        texts = [(path.name, path.read_text(errors="replace").splitlines()[-15:]) for path in sorted(self.folder.glob("*.log"))]
        return "".join(f"\n\n{name}:\n" + "\n".join(lines) for name, lines in texts)

    def close(self) -> None:
        """Stop what was started, the worker before the server, and remove the folder."""
        for name, child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(15)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            print(f"stopped scitq {name}", flush=True)
        for path in self.folder.rglob("*"):
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o700)
        shutil.rmtree(self.folder, ignore_errors=True)


def main() -> int:
    signal.signal(signal.SIGINT, _interrupted)
    signal.signal(signal.SIGTERM, _interrupted)
    demo = Demo()
    try:
        _show(demo)
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        demo.step("stopping")
        demo.close()
    print(f"\nThat was scitq, in {time.monotonic() - demo.begin:.0f} s. README.md goes on from here.")
    return 0


def _show(demo: Demo) -> None:
    demo.step("a server without a configuration file: it makes itself a private default")
    data = Path(demo.env["HOME"]) / ".local/share/scitq"
    demo.start("serve", "serve", "--port", str(demo.port))
    password = data / "admin-password"
    demo.until("the server's default", password.is_file)

    def log_in() -> bool:
        words = ("login", "--user", "admin", "--password-file", str(password), "--no-session")
        demo.env["SCITQ_TOKEN"] = demo.scitq(*words, shown=False, check=False).strip()
        return bool(demo.env["SCITQ_TOKEN"])

    demo.until("login", log_in)
    print(f"$ export SCITQ_TOKEN=$(scitq login --user admin --password-file {password})")

    demo.step("a worker on this machine")
    demo.start("agent", "agent", "--concurrency", "2", "--work-dir", str(demo.folder / "agent"))
    demo.until("the worker", lambda: json.loads(demo.scitq("worker", "list", "--json", shown=False)))
    print(demo.scitq("worker", "list"))

    in_docker = _docker_has_the_image()
    demo.step(f"three tasks, in containers of the image {IMAGE}" if in_docker else "three tasks, on this machine itself: no Docker here")
    (demo.folder / "words.txt").write_text(WORDS)
    (demo.folder / "greet.sh").write_text(GREETER)
    demo.scitq("file", "copy", str(demo.folder / "words.txt"), "store://data/words.txt")
    demo.scitq("file", "copy", str(demo.folder / "greet.sh"), "store://tools/greet.sh")
    container = IMAGE if in_docker else "bare"
    source, target, tools = ("/input", "/output", "/resource") if in_docker else ("$INPUT", "$OUTPUT", "$RESOURCE")
    create = ("task", "create", "--container", container)
    ids = [
        demo.scitq(*create, "--command", 'echo "hello world"', "--quiet"),
        demo.scitq(
            *create, "--shell", "sh", "--input", "store://data/words.txt", "--output", "store://results/counts/",
            "--command", f"sort {source}/words.txt | uniq -c | sort -rn > {target}/counts.txt; wc -l {source}/words.txt", "--quiet",
        ),
        demo.scitq(*create, "--shell", "sh", "--resource", "store://tools/greet.sh", "--command", f"{tools}/greet.sh", "--quiet"),
    ]  # fmt: skip
    ids = [one.strip() for one in ids]

    demo.step("their states, as they change")
    _watch(demo, ids)
    print("\nall that happened, in milliseconds since each was created:")
    for one in ids:
        changes = json.loads(demo.scitq("task", "show", "--id", one, "--json", shown=False))[0]["changes"]
        print(f"  task {one}: " + " → ".join(f"{change['status']} {change['at_ms'] - changes[0]['at_ms']}" for change in changes))
    print()
    print(demo.scitq("task", "list"))

    demo.step("what they printed")
    for one in ids:
        print(demo.scitq("task", "output", "--id", one))

    demo.step("the result of task 2, in the storage")
    print(demo.scitq("file", "list", "store://results/counts/"))
    demo.scitq("file", "copy", "store://results/counts/counts.txt", str(demo.folder / "counts.txt"))
    print((demo.folder / "counts.txt").read_text())


def _watch(demo: Demo, ids: list[str]) -> None:
    """Print each change of state until all have ended; a failed task ends the demonstration."""
    seen: dict[str, str] = {}
    deadline = time.monotonic() + 90
    while True:
        tasks = {str(task["id"]): task for task in json.loads(demo.scitq("task", "list", "--json", shown=False))}
        for one in ids:
            status = str(tasks[one]["status"])
            if seen.get(one) != status:
                seen[one] = status
                print(f"  {time.monotonic() - demo.begin:5.1f} s   task {one}: {status}, {LETTERS.get(status, '')}", flush=True)
        if all(status in "SFX" for status in seen.values()):
            break
        if time.monotonic() > deadline:
            raise SystemExit(f"the tasks did not end{demo.logs()}")
        time.sleep(0.1)
    for one, status in seen.items():
        if status != "S":
            raise SystemExit(f"task {one} ended with {status}: {demo.scitq('task', 'output', '--id', one, check=False)}{demo.logs()}")


def _docker_has_the_image() -> bool:
    """Whether Docker answers and has the image, or can get it in half a minute."""
    if not shutil.which("docker"):
        return False
    for words, timeout_s in ((("image", "inspect", IMAGE), 15), (("pull", "--quiet", IMAGE), 30)):
        try:
            if words[0] == "pull" and subprocess.run(["docker", "version"], capture_output=True, timeout=15, check=False).returncode:
                return False
            if subprocess.run(["docker", *words], capture_output=True, timeout=timeout_s, check=False).returncode == 0:
                return True
        except subprocess.TimeoutExpired:
            continue
    return False


def _two_ports() -> int:
    """A free port whose next one is free too: the server tells its public key there."""
    while True:
        with socket.socket() as probe, socket.socket() as neighbour:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
            try:
                neighbour.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def _quoted(word: str) -> str:
    return word if word and all(letter.isalnum() or letter in "-_./:" for letter in word) else f"'{word}'"


def _interrupted(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
