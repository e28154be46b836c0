"""Contract AUTH-1 to AUTH-8, AUTH-11 to AUTH-14: logging in, against a real server."""

from __future__ import annotations

import os
import secrets
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from tests.lib.kinds import declared
from tests.lib.site import PASSWORD, Shell, Site, clean_environment, hashed, wait_until
from tests.lib.terminal import Terminal

from scitq.client import link
from scitq.client.locate import Address
from scitq.protocol import envelope
from scitq.protocol.registry import Role

pytestmark = pytest.mark.xdist_group("cli_login")
ODD = "pä ss'w\"ör$d `x` \\ é"


@pytest.fixture(scope="module")
def site(tmp_path_factory, scitq_argv):
    with Site(tmp_path_factory.mktemp("login"), scitq_argv) as site:
        yield site


@pytest.fixture
def nobody(site, tmp_path) -> Shell:
    """Somebody with a fresh home, who knows the server's address only."""
    return Shell(site.argv, clean_environment(tmp_path / "home") | {"SCITQ_SERVER": f"127.0.0.1:{site.port}"})


def raw(site: Site, kind: str, token: str) -> envelope.ErrorBody | None:
    """What a client of one's own is told for a message of `kind` with an empty body."""
    os.environ["SCITQ_SERVER_KEY"] = site.key
    try:
        with link.Link(Address("127.0.0.1", site.port)) as connection:
            return link.error_of(connection.request(kind, token, {}))
    finally:
        del os.environ["SCITQ_SERVER_KEY"]


def test_auth_01_every_message_needs_a_token(site):
    genuine = site.environment["SCITQ_TOKEN"]
    forged = genuine[:-6] + ("AAAAAA" if not genuine.endswith("AAAAAA") else "BBBBBB")
    kinds = [kind for kind in declared() if Role.ANYONE not in kind.roles]
    assert len(kinds) > 20
    os.environ["SCITQ_SERVER_KEY"] = site.key
    try:
        with link.Link(Address("127.0.0.1", site.port)) as connection:
            for kind in kinds:
                for token in ("", forged, "nonsense", "scitq1.a.b"):
                    error = link.error_of(connection.request(kind.kind, token, {}))
                    assert error is not None, kind.kind
                    assert error.code == "not_logged_in", (kind.kind, token, error)
    finally:
        del os.environ["SCITQ_SERVER_KEY"]


def test_auth_01_a_user_may_not_send_what_workers_send(site):
    token = site.environment["SCITQ_TOKEN"]
    for kind in ("agent.register", "agent.report", "agent.goodbye"):
        error = raw(site, kind, token)
        assert error is not None
        assert error.code == "forbidden"


def test_auth_01_a_workers_token_lists_nothing(site):
    worker = site.ok("user token create --worker").out.strip()
    for words in ("task list", "user list", "worker list", "task create --container bare --command true"):
        ran = site.fails(words, 7, env={"SCITQ_TOKEN": worker})
        assert ran.out == ""


def test_auth_01_ping_and_help_need_none(site, nobody):
    assert "not logged in" in nobody.ok("ping").out
    nobody.ok("task create --help")


def test_auth_02_a_plain_password_in_the_file_is_refused(site, scitq_argv, tmp_path):
    config = tmp_path / "scitq.yaml"
    config.write_text("scitq:\n  port: 0\n  admin_hashed_password: secret123\n")
    ran = Shell(scitq_argv, clean_environment(tmp_path)).fails(["serve", "--config", str(config)], 2)
    assert "admin_hashed_password" in ran.err
    assert "scitq hashpassword" in ran.err
    assert "line 3" in ran.err
    assert "secret123" not in ran.err + ran.out


def test_auth_02_hashpassword_makes_what_the_file_takes(site, scitq_argv, tmp_path):
    made = nobody_hash = site.ok("hashpassword --password-stdin", stdin="x y\n").out.strip()
    assert made.startswith("$2b$")
    assert "\n" not in nobody_hash


def test_auth_03_an_admin_makes_users_who_make_no_users(site):
    anna = site.shell("anna", "pw of anna")
    task = anna.create("true", "--hold")
    assert anna.show(task)["row"]["user"] == "anna"
    ran = anna.fails(["user", "create", "--user", "eve", "--password-stdin"], 7, stdin="x")
    assert ran.out == ""
    assert "eve" not in [row["name"] for row in site.ok("user list --json").json]


def test_auth_04_the_token_alone_is_on_stdout(site, nobody):
    for locale in ({"LANG": "C.UTF-8"}, {"LANG": "C", "LC_ALL": "C"}):
        with Terminal([*nobody.argv, "login"], nobody.environment | locale) as terminal:
            terminal.expect("User: ")
            terminal.type("admin\n")
            terminal.expect("Password: ")
            terminal.wait_silent()
            terminal.type(PASSWORD + "\n")
            status, out = terminal.end()
            assert status == 0, terminal.seen
            assert terminal.is_echoing()
        assert out.endswith("\n")
        token = out[:-1]
        assert token
        assert not any(c.isspace() for c in token)
        assert PASSWORD not in terminal.seen
        assert site.ok("task list", env={"SCITQ_TOKEN": token}).status == 0


@pytest.mark.parametrize(("typed", "at"), [("\x03", "Password: "), ("\x04", "Password: "), ("\x03", "User: "), ("\x04", "User: ")])
def test_auth_04_leaving_the_prompt_restores_the_echo(nobody, typed, at):
    with Terminal([*nobody.argv, "login"], nobody.environment) as terminal:
        terminal.expect("User: ")
        if at == "Password: ":
            terminal.type("admin\n")
            terminal.expect(at)
            terminal.wait_silent()
        terminal.type(typed)
        status, out = terminal.end()
        assert status == 130, terminal.seen
        assert out == ""
        assert terminal.is_echoing()
        assert "Traceback" not in terminal.seen


def test_auth_05_no_terminal_and_no_credentials(nobody):
    start = time.monotonic()
    ran = nobody.fails("login", 2, start_new_session=True)
    assert time.monotonic() - start < 30
    assert ran.out == ""
    assert "--password-stdin" in ran.err
    assert "--user" in ran.err


def test_auth_05_password_file_and_token_file(site, nobody, tmp_path):
    password = tmp_path / "password"
    password.write_text(PASSWORD + "\n")
    token = nobody.ok(["login", "--user", "admin", "--password-file", str(password), "--no-session"], start_new_session=True).out
    kept = tmp_path / "token"
    kept.write_text("  " + token + "\r\n")
    kept.chmod(0o644)
    assert "chmod 600" in nobody.ok(["--token-file", str(kept), "task", "list"]).err
    kept.chmod(0o600)
    assert nobody.ok(["--token-file", str(kept), "task", "list"]).err == ""
    assert nobody.ok(["--token-file", str(kept), "ping"]).out.count("admin (admin)") == 1
    assert nobody.ok(["task", "list", "--token-file", str(kept)], env={"SCITQ_TOKEN": "wrong"}).status == 0
    nobody.fails(["--token-file", str(tmp_path / "absent"), "task", "list"], 2)


def test_auth_06_a_failed_login_leaves_stdout_empty(site, nobody):
    for user, password in (("admin", "wrong secret"), ("ghost", PASSWORD), ("", "x")):
        ran = nobody.run(["login", "--user", user, "--password-stdin"], stdin=password)
        assert ran.status in {2, 3}
        assert ran.out == ""
        assert "login failed" in ran.err
        assert password not in ran.err or password == "x"
    assert "wrong secret" not in site.server_log
    script = f"T=$({' '.join(nobody.argv)} login --user admin --password-file /dev/null) && echo ok"
    done = subprocess.run(["sh", "-c", script], env=nobody.environment, capture_output=True, check=False)
    assert done.stdout == b""


def test_auth_07_the_line_of_the_guide_works_without_export(nobody, site):
    exe = " ".join(nobody.argv)
    script = f"SCITQ_TOKEN=$({exe} login --user admin --password-stdin); {exe} task list && echo seen"
    environment = {name: value for name, value in nobody.environment.items() if name != "SCITQ_TOKEN"}
    with Terminal(["sh", "-c", script], environment) as terminal:
        terminal.type(PASSWORD + "\n\x04")
        status, out = terminal.end()
    assert status == 0, terminal.seen
    assert "seen" in out
    files = list(Path(nobody.environment["XDG_RUNTIME_DIR"]).glob("scitq/sessions/*"))
    assert len(files) == 1
    assert stat.S_IMODE(files[0].stat().st_mode) == 0o600
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    other = nobody.fails("task list", 3, start_new_session=True)
    assert "scitq login" in other.err


def test_auth_07_no_session_leaves_no_file(nobody):
    nobody.ok("login --user admin --password-stdin --no-session", stdin=PASSWORD)
    assert not list(Path(nobody.environment["XDG_RUNTIME_DIR"]).glob("scitq/sessions/*"))


def test_auth_07_a_session_file_that_others_may_read_is_not_believed(nobody):
    exe = " ".join(nobody.argv)
    script = f"{exe} login --user admin --password-stdin >/dev/null; chmod 644 $XDG_RUNTIME_DIR/scitq/sessions/*; {exe} task list"
    done = subprocess.run(
        ["sh", "-c", script], env=nobody.environment, input=PASSWORD.encode(), capture_output=True, check=False, start_new_session=True
    )
    assert done.returncode == 3, done


def test_auth_08_tokens_outlive_a_restart_and_end_with_their_time(site, nobody):
    token = nobody.ok("login --user admin --password-stdin --no-session", stdin=PASSWORD).out.strip()
    short = nobody.ok("login --user admin --password-stdin --no-session --ttl 1s", stdin=PASSWORD).out.strip()
    site.restart_server()
    assert nobody.ok("task list", env={"SCITQ_TOKEN": f"  {token}\r\n"}).status == 0

    def is_over() -> bool:
        ran = nobody.run("task list", env={"SCITQ_TOKEN": short})
        return ran.status == 3 and "scitq login" in ran.err and ran.out == ""

    wait_until(is_over, "the token's expiry")
    for empty in ("", "  ", "\r\n"):
        assert "scitq login" in nobody.fails("task list", 3, env={"SCITQ_TOKEN": empty}, start_new_session=True).err


def test_auth_09_not_logged_in_needs_no_server(nobody):
    ran = nobody.fails("task list", 3, env={"SCITQ_SERVER": "192.0.2.1:5"}, start_new_session=True)
    assert "SCITQ_TOKEN=$(scitq login)" in ran.err
    assert "Traceback" not in ran.err
    assert ran.out == ""


def test_auth_11_addresses(site, nobody):
    good = f"127.0.0.1:{site.port}"
    nobody.ok(["--server", good, "ping"], env={"SCITQ_SERVER": "192.0.2.1:5"})
    nobody.ok(["ping", "--server", f"localhost:{site.port}"], env={"SCITQ_SERVER": "192.0.2.1:5"})
    nobody.ok("ping", env={"SCITQ_SERVER": f"  {good} "})
    for bad in ("host:notaport", "host:0", "host:70000", "[::1", "a b:1", ":5"):
        ran = nobody.fails(["ping"], 2, env={"SCITQ_SERVER": bad})
        assert "SCITQ_SERVER" in ran.err


def test_auth_12_first_contact_pins_the_key(site, nobody):
    first = nobody.ok("ping")
    assert "SHA256:" in first.err
    pins = Path(nobody.environment["HOME"]) / ".config/scitq/known_servers"
    assert pins.read_text() == f"127.0.0.1:{site.port} {site.key}\n"
    assert stat.S_IMODE(pins.stat().st_mode) == 0o600
    assert nobody.ok("ping").err == ""
    pins.write_text(f"127.0.0.1:{site.port} {'0' * 40}\n")
    ran = nobody.fails("ping", 4)
    assert "key" in ran.err
    assert str(pins) in ran.err
    assert ran.out == ""
    assert nobody.ok("ping", env={"SCITQ_SERVER_KEY": site.key}).status == 0
    ran = nobody.fails("ping", 4, env={"SCITQ_SERVER_KEY": "0" * 40})
    assert "not the one in SCITQ_SERVER_KEY" in ran.err
    assert "remove the line" not in ran.err


def test_auth_12_a_home_that_can_not_be_written(site, nobody, tmp_path):
    assert nobody.ok("ping", env={"HOME": "/proc/nowhere"}).status == 0
    assert nobody.ok("ping", env={"HOME": None}).status == 0


def test_auth_13_wrong_user_and_wrong_password_are_told_the_same(site, nobody):
    nobody.ok("ping")
    wrong_user = nobody.fails("login --user nobody-at-all --password-stdin", 3, stdin="x1")
    wrong_password = nobody.fails("login --user admin --password-stdin", 3, stdin="x1")
    assert "login failed: Unauthenticated: invalid credentials" in wrong_user.err
    assert wrong_user.err == wrong_password.err


def test_auth_13_odd_passwords_work(site):
    site.ok(["user", "create", "--user", "öddname", "--password-stdin"], stdin=ODD)
    assert site.token_of("öddname", ODD)


def test_auth_14_logout_one_and_all(site):
    site.shell("carl", "pw")
    one, two, three = (site.token_of("carl", "pw") for _ in range(3))
    site.ok("logout", env={"SCITQ_TOKEN": one})
    site.fails("task list", 3, env={"SCITQ_TOKEN": one})
    site.ok("task list", env={"SCITQ_TOKEN": two})
    site.ok("logout --all", env={"SCITQ_TOKEN": two})
    for token in (two, three):
        site.fails("task list", 3, env={"SCITQ_TOKEN": token})


def test_auth_14_the_token_that_workers_share_is_not_ended_by_a_logout(site):
    worker = {"SCITQ_TOKEN": (site.data / "worker.token").read_text()}
    for words in ("logout", "logout --all"):
        assert "worker_token" in site.fails(words, 7, env=worker).err
    assert "worker" in site.ok("ping", env=worker).out


def test_auth_14_deleting_and_demoting_act_at_once(site):
    site.ok(["user", "create", "--user", "dora", "--admin", "--password-stdin"], stdin="pw")
    token = site.token_of("dora", "pw")
    site.ok(["user", "create", "--user", "made-by-dora", "--password-stdin"], stdin="pw", env={"SCITQ_TOKEN": token})
    site.ok("user update --user dora --admin no")
    ran = site.run(["user", "create", "--user", "late", "--password-stdin"], stdin="pw", env={"SCITQ_TOKEN": token})
    assert ran.status in {3, 7}
    token = site.token_of("dora", "pw")
    site.ok("user delete --user dora")
    site.fails("task list", 3, env={"SCITQ_TOKEN": token})
    site.fails("login --user dora --password-stdin", 3, stdin="pw")


def test_user_passwords_can_be_changed(site, tmp_path):
    emil = site.shell("emil", "old one")
    old = tmp_path / "old"
    old.write_text("old one")
    emil.ok(["user", "change-password", "--password-stdin", "--old-password-file", str(old)], stdin="new one")
    site.fails("login --user emil --password-stdin", 3, stdin="old one")
    assert site.token_of("emil", "new one")
    site.ok("user change-password --user emil --password-stdin", stdin="third one")
    assert site.token_of("emil", "third one")


def test_tokens_are_listed_and_revoked(site):
    fred = site.shell("fred", "pw")
    token = fred.ok("user token create --ttl 365d --name backup").out.strip()
    rows = fred.ok("user token list --json").json
    (row,) = [row for row in rows if row["name"] == "backup"]
    assert row["user"] == "fred"
    fred.ok("task list", env={"SCITQ_TOKEN": token})
    fred.ok(["user", "token", "revoke", "--id", row["id"]])
    fred.fails("task list", 3, env={"SCITQ_TOKEN": token})
    assert row["id"] not in fred.ok("user token list").out


def test_auth_02_a_changed_password_in_the_file_holds_after_a_restart(site):
    old = site.environment["SCITQ_TOKEN"]
    site.stop_server()
    site.write_config(admin_hashed_password=hashed("another one"))
    site.start_server()
    site.fails("login --user admin --password-stdin", 3, stdin=PASSWORD)
    token = site.token_of("admin", "another one")
    site.ok("task list", env={"SCITQ_TOKEN": token})
    site.fails("task list", 3, env={"SCITQ_TOKEN": old})
    site.stop_server(signal.SIGINT)
    site.write_config(admin_hashed_password=hashed(PASSWORD).replace("$2b$", "$2a$"))
    site.start_server()
    site.login()
    assert secrets.compare_digest(site.ok("ping --json").json["version"], site.ok("version").out.split()[1])
