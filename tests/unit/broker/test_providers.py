"""What needs no service: options of providers, limits, and the batch script."""

import subprocess
from pathlib import Path

import pytest

from scitq.broker.providers.base import Bootstrap, MachineRequest, ProviderContext
from scitq.broker.providers.registry import limits_of, open_providers
from scitq.broker.providers.slurm import SlurmProvider
from scitq.errors import UsageError
from scitq.model.flavor import Flavor

SINFO = """#!/bin/sh
cat <<END
main|16|64000|100000|(null)|idle|infinite
main|16|64000|100000|(null)|allocated|infinite
main|64|256000|100000|gpu:a100:4(S:0-1)|idle|infinite
debug|4|8000|1|(null)|mixed|30:00
broken|4|8000|1|(null)|down*|infinite
END
"""


@pytest.fixture
def slurm(tmp_path: Path) -> SlurmProvider:
    """A driver whose sinfo is a program that prints what a mixed cluster would."""
    (tmp_path / "bin").mkdir()
    sinfo = tmp_path / "bin" / "sinfo"
    sinfo.write_text(SINFO)
    sinfo.chmod(0o755)
    options = {
        "bin": str(tmp_path / "bin"),
        "cost": {"main": 1.5, "debug": 0.5},
        "eviction": 2,
        "account": "lab",
        "sbatch": ["--nice=10"],
        "setup": "module load x",
        "flavors": {"part": {"partition": "main", "cpus": 4, "mem": 8, "gres": "gpu:1"}},
    }
    return SlurmProvider("slurm.main", options, ProviderContext(mark="scitq-x-", folder=tmp_path / "shared"))


def request(provider: SlurmProvider, name: str, **more: float) -> MachineRequest:
    flavor = next(flavor for flavor in provider.list_flavors() if flavor.name == name)
    bootstrap = Bootstrap(server="login:1", server_key="a&b'c", token="hidden", executable=("/opt/scitq",))
    return MachineRequest(name="scitq-x-1", flavor=flavor, region=flavor.region, bootstrap=bootstrap, **more)


def test_slurm_partitions_with_several_kinds_of_nodes_give_a_flavor_for_each(slurm: SlurmProvider) -> None:
    found = {flavor.name: flavor for flavor in slurm.list_flavors()}
    assert sorted(found) == ["debug", "main-16c-62g", "main-64c-250g-gpu", "part"]
    large = found["main-64c-250g-gpu"]
    assert (large.cpus, large.mem_gib, large.gpus, large.gpu, large.cost, large.eviction_percent) == (64, 250, 4, "a100", 1.5, 2)
    assert (found["debug"].cost, found["part"].gpus) == (0.5, 1)


def test_slurm_script_asks_for_what_the_flavor_is(slurm: SlurmProvider, tmp_path: Path) -> None:
    script = slurm.script(request(slurm, "part", time_limit_s=5400 + 86400))
    for line in (
        *("--job-name=scitq-x-1", "--partition=main", "--cpus-per-task=4", "--mem=8192M", "--gres=gpu:1", "--time=1-01:30:00"),
        *("--account=lab", "--nice=10", "--dependency=singleton", "--no-requeue"),
    ):
        assert f"#SBATCH {line}\n" in script
    assert "hidden" not in script
    assert "module load x" in script
    subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    whole = slurm.script(request(slurm, "main-64c-250g-gpu"))
    assert "#SBATCH --cpus-per-task=64\n" in whole
    assert "#SBATCH --gres=gpu:4\n" in whole
    assert "#SBATCH --time=1-00:00:00\n" in whole


@pytest.mark.parametrize(
    ("shown", "seconds"), [("59:30", "3570"), ("1-02:03:04", "93784"), ("0:05", "5"), ("UNLIMITED", ""), ("INVALID", "")]
)
def test_slurm_script_counts_the_seconds_left(slurm: SlurmProvider, tmp_path: Path, shown: str, seconds: str) -> None:
    agent = tmp_path / "agent"
    agent.write_text('#!/bin/sh\nprintf "%s\\n" "$@" "key=$SCITQ_SERVER_KEY" >"$OUT"\n')
    agent.chmod(0o755)
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f"#!/bin/sh\necho '{shown}'\n")
    squeue.chmod(0o755)
    script = slurm.script(request(slurm, "debug")).replace("/opt/scitq", str(agent)).replace("module load x", "")
    environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "OUT": str(tmp_path / "out"), "TMPDIR": str(tmp_path), "SLURM_JOB_ID": "7"}
    subprocess.run(["sh"], input=script, text=True, check=True, env=environment, timeout=60)
    words = (tmp_path / "out").read_text().splitlines()
    assert words[:3] == ["agent", "--server", "login:1"]
    assert words[-1] == "key=a&b'c"
    assert (words[words.index("--time-left") + 1] if seconds else "--time-left" not in words) == (seconds or True)
    assert not (tmp_path / "scitq-x-1").exists()


@pytest.mark.parametrize(
    "section",
    [
        {"azurr": {"main": {}}},
        {"slurm": {"main": {"tyme": "1h"}}},
        {"fake": {"main": {"fail_rate": -1}}},
        {"fake": {"main": {"flavors": {"a": {"cpu": 1}}}}},
        {"local": {"local": {"cost": "much"}}},
        {"fake": {"ma in": {}}},
        {"fake": {"a.b": {}}},
        {"fake": {"main": {}, "Main": {}}},
    ],
)
def test_options_that_can_not_be_meant_are_refused_by_name(section: dict, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        open_providers(section, "x-", tmp_path)
    assert "providers." in caught.value.message


def test_local_is_always_there_and_limits_are_read(tmp_path: Path) -> None:
    section = {"fake": {"Main": {"limits": {"workers": 3, "west": {"cpu": 8}}}}}
    assert sorted(open_providers(section, "x-", tmp_path)) == ["fake.main", "local.local"]
    assert [(quota.provider, quota.region, quota.kind, quota.most) for quota in limits_of(section)] == [
        ("fake.main", "", "workers", 3),
        ("fake.main", "west", "cpu", 8),
    ]
    with pytest.raises(UsageError):
        limits_of({"fake": {"main": {"limits": {"machines": 3}}}})
    with pytest.raises(UsageError):
        limits_of({"fake": {"main": {"limits": {"workers": float("nan")}}}})


def test_secrets_do_not_show() -> None:
    bootstrap = Bootstrap(server="a:1", server_key="k", token="hidden", executable=("x",))
    flavor = Flavor(provider="p", region="r", name="n", cpus=1, mem_gib=1)
    assert "hidden" not in repr(MachineRequest(name="m", flavor=flavor, region="r", bootstrap=bootstrap))
