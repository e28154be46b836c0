import pytest

from scitq.config import load, passwords, sample
from scitq.errors import UsageError

HASH = "$2b$04$" + "a" * 53


@pytest.fixture
def read(tmp_path):
    def read(text: str):
        file = tmp_path / "scitq.yaml"
        file.write_text(text)
        return load.read(file)

    return read


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        ("scitq:\n  port: 3\n  foo: 4\n", 3, "scitq.foo"),
        ("worker:\n  max_failures: -1\n", 2, "worker.max_failures"),
        ("scitq:\n\n  port: many\n", 3, "scitq.port"),
        ("scitq:\n  port: 65535\n", 2, "65535"),
        ("scitq:\n  admin_user: a\n  admin_hashed_password: plain\n", 3, "scitq hashpassword"),
        ("nope: 1\n", 1, "nope"),
        ("scitq:\n  token_ttl: soon\n", 2, "token_ttl"),
        ("worker:\n  min_free_disk: much\n", 2, "min_free_disk"),
        ("worker:\n  file_roots:\n  - 3\n", 3, "file_roots"),
        ("x: [", 1, "YAML"),
        ("registries:\n  a:\n    password: ${SCITQ_NO_SUCH}\n", 3, "SCITQ_NO_SUCH"),
        ("scitq:\n  port: 0\n  bind: x\n  port: 1\n", 4, "port: given twice (first on line 2)"),
        ("rclone:\n  a: {type: local}\n  a: {type: s3}\n", 3, "a: given twice"),
        ("scitq:\n  network_filesystem: maybe\n", 2, "exclusive"),
        ("rclone:\n  a: {type: local}\n  b: text\n", 3, "rclone.b"),
        ("registries:\n  ok: {}\n  r.example:\n    username: 5\n", 4, "registries.r.example.username"),
        ("registries:\n  r:\n    user: x\n", 3, "registries.r.user: there is no such key"),
        ("providers:\n  slurm: {}\n  azure:\n    primary: 5\n", 4, "providers.azure.primary"),
        ("rclone:\n  a: {type: local}\n  b:\n    provider: AWS\n", 3, "rclone.b: a storage needs its type"),
    ],
)
def test_errors_name_file_line_and_key(read, text, line, word):
    with pytest.raises(UsageError) as raised:
        read(text)
    assert f"scitq.yaml, line {line}:" in str(raised.value)
    assert word in str(raised.value)


def test_what_is_no_mapping(read):
    with pytest.raises(UsageError, match="sections"):
        read("- a\n")
    assert read("").scitq.port == 50051
    assert read("scitq:\nrclone:\n").rclone == {}


def test_a_relative_data_folder_lies_beside_the_file(read, tmp_path):
    assert read("scitq:\n  data_dir: data/x\n").scitq.data_dir == str(tmp_path / "data/x")
    for kept in ("/abs", "~/x", ""):
        assert read(f"scitq:\n  data_dir: '{kept}'\n").scitq.data_dir == kept


def test_variables_are_replaced(read, monkeypatch):
    monkeypatch.setenv("SCITQ_TEST_SECRET", "s e")
    assert read("scitq:\n  token_secret: a${SCITQ_TEST_SECRET}b\n").scitq.token_secret == "as eb"


def test_hashes_of_existing_files_are_taken(read):
    for kind in ("2a", "2b", "2y"):
        hashed = HASH.replace("2b", kind)
        assert read(f"scitq:\n  admin_hashed_password: '{hashed}'\n").scitq.admin_hashed_password == hashed
        assert passwords.is_hash(hashed)
    assert not passwords.is_hash("$2b$04$short")
    assert passwords.is_hash(passwords.hash_password("p", rounds=4))
    for wrong in ("", "a\0b", "x" * 73):
        with pytest.raises(UsageError):
            passwords.hash_password(wrong, rounds=4)


def test_the_sample_is_read_back_and_has_fresh_secrets(read):
    one, two = (read(sample.render(hashed_password=HASH, data_dir="/d", port=7, admin="root")) for _ in range(2))
    assert (one.scitq.port, one.scitq.data_dir, one.scitq.admin_user, one.scitq.admin_hashed_password) == (7, "/d", "root", HASH)
    assert one.scitq.worker_token != two.scitq.worker_token
    assert len(one.scitq.token_secret) >= 32


def test_where_a_configuration_is_looked_for(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.delenv("SCITQ_CONFIG", raising=False)
    file = load.user_file()
    file.parent.mkdir()
    file.write_text("")
    assert load.find() == file
    file.chmod(0o644)
    assert load.is_too_open(file)
    other = tmp_path / "other.yaml"
    other.write_text("")
    monkeypatch.setenv("SCITQ_CONFIG", str(other))
    assert load.find() == other
    assert load.find(str(file)) == file
    with pytest.raises(UsageError, match="absent"):
        load.find("absent")
