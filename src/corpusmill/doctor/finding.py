"""What the doctor says about one thing: how it is, what was found, and what to do about it."""

from dataclasses import asdict, dataclass
from typing import Literal

Level = Literal["ok", "warning", "error"]


@dataclass(frozen=True)
class Finding:
    """One finding.

    Attributes:
        check: What was looked at, ``catalog`` or ``models demo``.
        level: ``ok``; ``warning``: runs go on, but somebody should look; ``error``: runs fail or wait for ever.
        what: What was found, one line.
        todo: What to do about it, one line; "" where there is nothing to do.
    """

    check: str
    level: Level
    what: str
    todo: str = ""

    def __post_init__(self) -> None:
        for name in ("what", "todo"):  # messages of libraries have line breaks
            object.__setattr__(self, name, " ".join(getattr(self, name).split()))

    def to_json(self) -> dict[str, str]:
        """Returns the finding as a JSON object."""
        return asdict(self)


def ok(check: str, what: str) -> Finding:
    """Returns a finding that asks for nothing."""
    return Finding(check, "ok", what)


def warning(check: str, what: str, todo: str) -> Finding:
    """Returns a finding that runs survive."""
    return Finding(check, "warning", what, todo)


def error(check: str, what: str, todo: str) -> Finding:
    """Returns a finding that runs do not survive."""
    return Finding(check, "error", what, todo)
