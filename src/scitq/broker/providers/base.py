"""The driver contract of all providers: what makes, finds and deletes machines (docs/providers.md).

Calls are slow and are made in threads, never in the broker's loop. Machines are named by the server before anything is
asked for, and every call is idempotent by that name: to create what is there gives what is there, to delete what is
absent is done.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import msgspec

from scitq.errors import ProviderError, UsageError
from scitq.model.flavor import Flavor


class MachineState(StrEnum):
    """Where a machine is in its provider's eyes."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    ENDING = "ending"
    GONE = "gone"


class Bootstrap(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent needs on a fresh machine. The token is a secret: by a private file, never in argv or a listing."""

    server: str
    server_key: str
    token: str
    executable: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Bootstrap(server={self.server!r})"


class MachineRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A machine to make. `name`: chosen by the server, letters, digits and dashes, unique for all time."""

    name: str
    flavor: Flavor
    region: str
    bootstrap: Bootstrap
    time_limit_s: float | None = None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """A machine as the provider shows it. `message` is in the provider's own words; `is_evicted`: taken away, not failed.

    seconds_left: of a running machine whose provider will end it by itself; None where it will not. is_hopeless: it is
    queued for what its provider can't give.
    """

    name: str
    state: MachineState
    provider_id: str = ""
    addresses: tuple[str, ...] = ()
    message: str = ""
    is_evicted: bool = False
    seconds_left: float | None = None
    is_hopeless: bool = False


class QuotaError(ProviderError):
    """The provider has no room for this flavor now; another flavor or region may do."""

    code = "quota"
    is_retryable = True


class FlavorUnusableError(ProviderError):
    """The provider can't make this flavor (unknown, withdrawn, not allowed): set it aside."""

    code = "flavor_unusable"


class Provider(Protocol):
    """One configured provider, `kind.config`. Methods may be called from several threads at once."""

    name: str
    default_region: str
    update_period_s: float

    def check(self) -> str:
        """A line that says that the provider answers and as whom; ProviderError in its own words otherwise."""
        ...

    def list_flavors(self) -> list[Flavor]:
        """The whole catalogue, prices and evictions included."""
        ...

    def create(self, request: MachineRequest) -> Machine:
        """Make the machine, or find it when the name is there already; returns before it has started.

        Raises QuotaError, FlavorUnusableError, or ProviderError with the provider's own words.
        """
        ...

    def find(self, names: Collection[str] | None = None) -> list[Machine]:
        """The machines with these names, or all that carry this server's mark; those that are gone may be left out.

        Raises ProviderError whenever the answer is not certain: an empty list means that nothing is there.
        """
        ...

    def delete(self, name: str) -> None:
        """Order the end of the machine; done at once when there is none."""
        ...

    def script(self, request: MachineRequest) -> str:
        """What would be run or sent to make the machine, for `--dry-run`, without secrets."""
        ...


class ProviderContext(msgspec.Struct, frozen=True, kw_only=True):
    """What the broker hands every driver. `mark`: this server's own prefix of machine names; `folder`: for the driver's files."""

    mark: str
    folder: Path


class Settings:
    """The options of one provider in scitq.yaml, taken one by one; `end` refuses what nobody took."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._left = dict(options)

    def text(self, key: str, default: str = "") -> str:
        """A text; UsageError when it is something else."""
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise UsageError(f"providers.{self.name}.{key}: a text is expected, not {value!r}")
        return str(value)

    def number(self, key: str, default: float) -> float:
        """A number that is not negative."""
        value = self._left.pop(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise UsageError(f"providers.{self.name}.{key}: a number, 0 or more, is expected, not {value!r}")
        return float(value)

    def is_on(self, key: str, default: bool = False) -> bool:
        """True or false."""
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            raise UsageError(f"providers.{self.name}.{key}: true or false is expected, not {value!r}")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts; one text counts as a list of one."""
        value = self._left.pop(key, [])
        given = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) for item in given):
            raise UsageError(f"providers.{self.name}.{key}: a list of texts is expected")
        return [str(item) for item in given]

    def numbers_by_name(self, key: str) -> dict[str, float]:
        """A mapping of names to numbers; a lone number is the one for every name, under `*`."""
        value = self._left.pop(key, {})
        if isinstance(value, int | float) and not isinstance(value, bool):
            return {"*": float(value)}
        if not isinstance(value, dict) or not all(isinstance(number, int | float) for number in value.values()):
            raise UsageError(f"providers.{self.name}.{key}: a number, or names with numbers, is expected")
        return {str(name): float(number) for name, number in value.items()}

    def sections(self, key: str) -> dict[str, dict[str, Any]]:
        """A mapping of names to mappings."""
        value = self._left.pop(key, {})
        if not isinstance(value, dict) or not all(isinstance(inner, dict) for inner in value.values()):
            raise UsageError(f"providers.{self.name}.{key}: names with settings below them are expected")
        return {str(name): dict(inner) for name, inner in value.items()}

    def end(self) -> None:
        """UsageError that names the options that no driver knows."""
        if self._left:
            raise UsageError(f"providers.{self.name}: unknown options: {', '.join(sorted(self._left))}")


def words_of(output: bytes, fallback: str) -> str:
    """The last lines that a program printed, as the provider's own words."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "; ".join(lines[-3:]) or fallback


def agent_arguments(provider: str, request: MachineRequest, token_file: str, work_dir: str, extra: Sequence[str] = ()) -> list[str]:
    """The argv of `scitq agent` on a machine; the server's key goes by $SCITQ_SERVER_KEY.

    Concurrency and prefetch are the server's to tell, so that they can be changed later.
    """
    given = {
        "--server": request.bootstrap.server,
        "--token-file": token_file,
        "--work-dir": work_dir,
        "--machine": request.name,
        "--provider": provider,
        "--region": request.region,
        "--flavor": request.flavor.name,
    }
    return [*request.bootstrap.executable, "agent", *[word for pair in given.items() for word in pair], *extra]
