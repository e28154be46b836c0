"""Options of an entry of type `s3`, in rclone's names, and where its credentials come from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit

from scitq.errors import StorageError, UsageError
from scitq.storage.sigv4 import Credentials
from scitq.storage.wire import Origin

_UPLOAD_HEADERS: Final = {
    "acl": "x-amz-acl",
    "storage_class": "x-amz-storage-class",
    "server_side_encryption": "x-amz-server-side-encryption",
    "sse_kms_key_id": "x-amz-server-side-encryption-aws-kms-key-id",
}
KNOWN_OPTIONS: Final = frozenset(
    {
        "type",
        "provider",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "env_auth",
        "profile",
        "region",
        "endpoint",
        "force_path_style",
        "requester_pays",
        "description",
        "location_constraint",
        "no_check_bucket",
        "no_check_certificate",
        "ca_cert",
        *_UPLOAD_HEADERS,
    }
)
"""What this engine understands; an entry with any other option is served by rclone, which knows them all."""

CredentialSource = Callable[[], Credentials | None]


@dataclass(frozen=True, slots=True)
class S3Config:
    """Everything needed to speak to one S3 service."""

    endpoint: str
    region: str
    is_path_style: bool
    credentials: CredentialSource = field(repr=False)
    upload_headers: Mapping[str, str] = field(default_factory=dict)
    read_headers: Mapping[str, str] = field(default_factory=dict)
    verify: bool = True
    ca_file: str | None = None

    @classmethod
    def parse(cls, name: str, settings: Mapping[str, str]) -> S3Config:
        """Read the options of the entry `name`; raises UsageError for those that contradict each other."""
        provider = settings.get("provider", "AWS").lower()
        endpoint = settings.get("endpoint", "").strip().rstrip("/")
        region = settings.get("region", "").strip()
        if not endpoint:
            if provider not in {"aws", ""}:
                raise UsageError(f"the storage {name!r} of type s3 needs its endpoint: address")
            region = region or "us-east-1"
            endpoint = f"https://s3.{region}.amazonaws.com" + (".cn" if region.startswith("cn-") else "")
        elif "://" not in endpoint:
            endpoint = f"https://{endpoint}"
        path_style = settings.get("force_path_style", "")
        headers = {header: settings[option] for option, header in _UPLOAD_HEADERS.items() if settings.get(option)}
        requester = {"x-amz-request-payer": "requester"} if is_true(settings.get("requester_pays", "")) else {}
        return cls(
            endpoint=endpoint,
            region=region or "us-east-1",
            is_path_style=is_true(path_style) if path_style else not _has_bucket_hosts(settings.get("provider", "").lower(), endpoint),
            credentials=_credential_source(name, settings),
            upload_headers=headers | requester,
            read_headers=requester,
            verify=not is_true(settings.get("no_check_certificate", "")),
            ca_file=settings.get("ca_cert") or None,
        )

    def place(self, bucket: str, endpoint: str) -> tuple[Origin, str]:
        """The server that holds `bucket` and the start of every path on it."""
        origin = Origin.of(endpoint)
        base = urlsplit(endpoint).path.rstrip("/")
        if not bucket or self.is_path_style or (origin.is_tls and "." in bucket):
            return origin, f"{base}/{bucket}" if bucket else base
        return Origin(origin.is_tls, f"{bucket}.{origin.host}", origin.port), base


def _has_bucket_hosts(provider: str, endpoint: str) -> bool:
    """Whether each bucket has a host name of its own there; bare addresses and names without a domain can't have it."""
    host = urlsplit(endpoint).hostname or ""
    if ":" in host or "." not in host or host.rpartition(".")[2].isdigit():
        return False
    if not provider:
        return ".amazonaws." in f"{host}."
    return provider in {"aws", "alibaba", "netease", "tencentcos"}


def is_true(text: str) -> bool:
    """What rclone takes for true."""
    return text.strip().lower() in {"true", "1", "yes", "on", "t", "y"}


def _credential_source(name: str, settings: Mapping[str, str]) -> CredentialSource:
    key, secret = settings.get("access_key_id", ""), settings.get("secret_access_key", "")
    if bool(key) != bool(secret):
        raise UsageError(f"the storage {name!r} needs both access_key_id and secret_access_key, or neither")
    if key:
        fixed = Credentials(key, secret, settings.get("session_token", ""))
        return lambda: fixed
    if is_true(settings.get("env_auth", "")):
        return _Chain(name, settings.get("profile") or None)
    return lambda: None


class _Chain:
    """Amazon's usual chain: environment, files, single sign-on, the instance's role; renewed before they expire."""

    def __init__(self, name: str, profile: str | None) -> None:
        self._name, self._profile = name, profile
        self._found: object = None

    def __call__(self) -> Credentials | None:
        from botocore.exceptions import BotoCoreError
        from botocore.session import Session

        try:
            if self._found is None:
                self._found = Session(profile=self._profile).get_credentials()
            if self._found is None:
                raise StorageError(f"the storage {self._name!r} has env_auth, but no credentials are in this environment")
            frozen = self._found.get_frozen_credentials()  # type: ignore[attr-defined] # botocore has no types
        except BotoCoreError as error:
            raise StorageError(f"the credentials of the storage {self._name!r} can't be had: {error}") from error
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token or "")
