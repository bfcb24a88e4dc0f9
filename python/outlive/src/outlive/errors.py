"""What can go wrong, by type. Every message says what happened, to what, and what to do."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .models import Run


class OutliveError(Exception):
    """The root of all errors of this package."""


class Notice(UserWarning):
    """Something was done, and not all that one may have meant by it. Told by :mod:`warnings`."""


def tell(notice: str | None) -> None:
    """Tells whoever called the caller of this."""
    if notice is not None:
        warnings.warn(notice, Notice, stacklevel=3)


class DaemonGone(OutliveError):
    """No daemon answers, or it went away before it had answered: whether the call was carried out is not known."""


class Unreadable(OutliveError):
    """The answer is not what this version of the API says: daemon and client are of different versions."""


class Problem(OutliveError):
    """The daemon refused (RFC 9457)."""

    def __init__(self, doing: str, body: dict[str, Any]) -> None:
        self.doing = doing
        """What was tried, for instance ``save``."""
        self.code: str = str(body.get("code", "unknown"))
        """The stable code, for instance ``path-already-open``."""
        self.status: int = int(body.get("status", 0))
        """The HTTP status."""
        self.detail: str = str(body.get("detail", body.get("title", "")))
        """What happened here, to what."""
        self.hint: str | None = _HINTS.get(self.code) or body.get("hint")
        """What to do about it."""
        self.facts: dict[str, str] = dict(body.get("facts", {}))
        """More facts by name."""
        self.elsewhere: str | None = (body.get("elsewhere") or {}).get("url")
        """The URL of the node that can do it, where this one cannot."""
        super().__init__(self._text())

    @property
    def passing(self) -> bool:
        """Whether nothing was done and what stands in the way passes by itself: a session changes its node, a node
        hands over or is cut off, the store does not answer."""
        return self.status == _UNAVAILABLE and self.code in _PASSING

    def _text(self) -> str:
        text = f"cannot {self.doing}: {self.detail}"
        return f"{text} ({self.hint})" if self.hint else text


class PathAlreadyOpen(Problem):
    """Another session has the file. It is untouched."""

    @property
    def path(self) -> str:
        """The file."""
        return self.facts.get("path", "the file")

    @property
    def session_id(self) -> str:
        """The session that has it."""
        return self.facts.get("session", "unknown")

    def _text(self) -> str:
        return f"cannot {self.doing}: {self.path} is open in session {self.session_id}; close it or choose another path"


class NotSaved(Problem):
    """The file cannot be written, or is somebody else's now. It is as it was, and nothing of the session is lost."""


class Unsaved(Problem):
    """The session has edits that no file has. Save it, or close it with ``discard=True``."""


class CellChanged(Problem):
    """A cell reads otherwise than was expected: nothing was run, or edited."""

    @property
    def source(self) -> str | None:
        """What it reads now, where that was told."""
        return self.facts.get("source")


class NotFound(Problem):
    """There is no such session, run, cell or file."""


class RunFailed(OutliveError):
    """A run did not succeed; its exception or the cause of its end is in the message."""

    def __init__(self, run: Run) -> None:
        self.run = run
        super().__init__(run.failure or "the run did not succeed")


_BY_CODE: dict[str, type[Problem]] = {
    "path-already-open": PathAlreadyOpen,
    "not-writable": NotSaved,
    "disk-full": NotSaved,
    "read-only": NotSaved,
    "file-changed": NotSaved,
    "file-deleted": NotSaved,
    "file-exists": NotSaved,
    "save-failed": NotSaved,
    "unsaved": Unsaved,
    "cell-changed": CellChanged,
}
_PATHS = {"no-such-directory", "is-a-directory", "bad-path", "claim-unavailable", "volume-not-here"}
"""What stands against a path. It is not written, if it was to be saved there."""
_HINTS = {
    "runtime-down": "`restart()` starts its kernel again",
    "no-such-session": "`outlive ps -a` lists those that there are",
    "session-ended": "its runs and outputs can still be read; `Session.open(path)` begins a new one",
    "no-such-file": "look for a typing mistake; `Session.new()` makes a notebook, which `save(path)` puts there",
    "has-a-path": "`save()` saves it there; `save_as(path)` moves the session, `save_copy(path)` writes a copy",
    "file-exists": "choose another path, or replace it with `overwrite=True`",
    "unsaved": "`save(path)` saves it; `close(discard=True)` gives the edits up",
}
"""What to do, in the words of this package, where the daemon speaks of its command line or its API."""
_NOT_FOUND = 404
_UNAVAILABLE = 503
_PASSING = {
    "session-moving",
    "owner-unreachable",
    "owner-silent",
    "node-isolated",
    "isolated",
    "joining",
    "draining",
    "shutting-down",
    "store-unavailable",
}


def problem(doing: str, body: dict[str, Any]) -> Problem:
    """The error for a refusal."""
    code = str(body.get("code", "unknown"))
    kind = NotSaved if doing == "save" and code in _PATHS else _BY_CODE.get(code)
    if kind is None:
        kind = NotFound if body.get("status") == _NOT_FOUND or code.startswith("no-such-") else Problem
    return kind(doing, body)
