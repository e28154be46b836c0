"""The whole error tree: a message for people, an exit status, a code on the wire, and whether trying again can help.

Exit statuses: docs/cli.md, "Exit statuses"; contract, section 0, item 13.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOT_LOGGED_IN = 3
EXIT_UNAVAILABLE = 4
EXIT_NOT_FOUND = 5
EXIT_CONFLICT = 6
EXIT_FORBIDDEN = 7
EXIT_TASK_FAILED = 10
EXIT_TIMED_OUT = 124
EXIT_INTERRUPTED = 130


class ScitqError(Exception):
    """The root: an operation failed for a reason that a person can read."""

    exit_status = EXIT_FAILED
    code = "failed"
    is_retryable = False
    position: int | None = None
    """Which item of a request with several is meant, counted from 0."""

    @property
    def message(self) -> str:
        """What failed, on which object, and what to try."""
        return str(self)


class UsageError(ScitqError):
    """The request itself is wrong: a bad option, value or file."""

    exit_status = EXIT_USAGE
    code = "usage"


class NotLoggedInError(ScitqError):
    """No token, or one that is forged, expired or revoked."""

    exit_status = EXIT_NOT_LOGGED_IN
    code = "not_logged_in"


class UnavailableError(ScitqError):
    """The server can't be reached or does not answer."""

    exit_status = EXIT_UNAVAILABLE
    code = "unavailable"
    is_retryable = True


class NotFoundError(ScitqError):
    """No such object."""

    exit_status = EXIT_NOT_FOUND
    code = "not_found"


class ConflictError(ScitqError):
    """The object's state forbids it."""

    exit_status = EXIT_CONFLICT
    code = "conflict"


class ForbiddenError(ScitqError):
    """Who asks may not do this."""

    exit_status = EXIT_FORBIDDEN
    code = "forbidden"


class TaskFailedError(ScitqError):
    """A task that was waited for did not succeed."""

    exit_status = EXIT_TASK_FAILED
    code = "task_failed"


class TimedOutError(ScitqError):
    """A wait reached its time limit."""

    exit_status = EXIT_TIMED_OUT
    code = "timed_out"


class ProtocolError(ScitqError):
    """A message that is malformed, too large, too deep or of an unknown kind."""

    code = "protocol"


class StorageError(ScitqError):
    """A storage refused, failed or lied; the message names the URI."""

    code = "storage"


class TransientStorageError(StorageError):
    """A storage failed in a way that a later try may not meet."""

    code = "storage_transient"
    is_retryable = True


class SourceMissingError(StorageError):
    """A URI names nothing."""

    exit_status = EXIT_NOT_FOUND
    code = "source_missing"


class DiskFullError(ScitqError):
    """No room is left where it was needed."""

    code = "disk_full"


class CancelledError(ScitqError):
    """The work was called off before its end."""

    code = "cancelled"


class ProviderError(ScitqError):
    """A provider refused or failed; the message is in its own words."""

    code = "provider"


def _tree(root: type[ScitqError]) -> dict[str, type[ScitqError]]:
    found = {root.code: root}
    for child in (each for each in root.__subclasses__() if "code" in vars(each)):
        found |= _tree(child)
    return found


def from_code(code: str, message: str, position: int | None = None) -> ScitqError:
    """The error that `code` names on the wire, with `message`; an unknown code gives the root."""
    error = _tree(ScitqError).get(code, ScitqError)(message)
    error.position = position
    return error
