"""What is wrong with a workflow file, each time with its line."""

from __future__ import annotations

from dataclasses import dataclass, field

from scitq.errors import UsageError

MOST_SHOWN = 20


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong, and the line (from 1; 0: no line of the file) where it stands."""

    line: int
    message: str


class TemplateError(UsageError):
    """A workflow file that can't be used; `problems` in the order of their lines."""

    def __init__(self, problems: list[Problem], file: str = "") -> None:
        self.problems = sorted(set(problems))
        self.file = file
        super().__init__(self._text())

    def _text(self) -> str:
        lines = [f"{self.file}:{each.line}: {each.message}" if each.line else f"{self.file}: {each.message}" for each in self.problems]
        if len(lines) > MOST_SHOWN:
            lines[MOST_SHOWN:] = [f"and {len(lines) - MOST_SHOWN} more"]
        return "\n".join(lines)


def problem(line: int, message: str) -> TemplateError:
    """An error with one problem, to be raised."""
    return TemplateError([Problem(line, message)])


@dataclass(slots=True)
class Problems:
    """Collects what is wrong, so that one run tells all of it."""

    found: list[Problem] = field(default_factory=list)

    def add(self, line: int, message: str) -> None:
        """Note one problem."""
        self.found.append(Problem(line, message))

    def take(self, error: UsageError, line: int) -> None:
        """Note the problems of an error; those of other parts of the program get `line`."""
        if isinstance(error, TemplateError):
            self.found += error.problems
        else:
            self.add(line, str(error))

    def raise_any(self, file: str) -> None:
        """Raise all that was found, as one TemplateError."""
        if self.found:
            raise TemplateError(self.found, file)
