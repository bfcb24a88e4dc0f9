"""What the readers of a stream keep: where they are, and what they have of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ._wire import RawEvent, Request
from .errors import Problem, problem
from .models import Event, Question, Run, State

_UNAVAILABLE = 503
_LARGE_BYTES_MAX = 64 << 20
"""How much of what is large is fetched with a run's output."""


@dataclass
class Cursor:
    """A stream that can be taken up again where it broke off."""

    request: Request
    over: bool = False
    fruitless: int = 0
    """How often it broke off since the last event."""
    sent_away: bool = False
    """Whether the last one said that it does not go on."""
    elsewhere: str | None = None
    """The URL of the node that does, as it said."""

    def next_request(self) -> Request:
        """The request with which to come back."""
        return self.request

    def take(self, raw: RawEvent) -> Event:
        """The event, with the place to come back to noted.

        Raises:
            Problem: the stream ends early, for a reason that coming back does not mend.
        """
        data: dict[str, Any] = json.loads(raw.data)
        kind = str(data.get("event", "unknown"))
        if kind != "problem":
            self.fruitless = 0
        if raw.id is not None:
            self.request = replace(self.request, last_event_id=raw.id)
        if kind == "end":
            self.over = True
        if kind == "problem":
            body = data["problem"]
            # It is about the stream, its daemon or its node, and not about the session: the cursor still stands.
            if body.get("status") != _UNAVAILABLE and body.get("code") != "slow-reader":
                self.over = True
                raise problem(self.request.doing, body)
            self.sent_away = body.get("code") != "slow-reader"
            self.elsewhere = (body.get("elsewhere") or {}).get("url")
        return Event(kind, data, raw.id)


def collect(run: Run, event: Event) -> None:
    """Puts what a stream tells about a run into it. Nothing twice: a reset says what is to be forgotten."""
    if event.kind == "run":
        told = Run.of(event.data["run"])
        run.state, run.outcome, run.execution_count = told.state, told.outcome, told.execution_count
    elif event.kind == "reset":
        del run.chunks[int(event.data["keep"]) :]
    elif event.kind == "output":
        first = int(event.data["first"])
        # What a run prints after its end has no number.
        new = event.data["chunks"] if first == 0 else event.data["chunks"][max(0, len(run.chunks) - first + 1) :]
        run.chunks.extend(new)
    elif event.kind == "end":
        run.state, run.outcome = "ended", event.data.get("outcome") or run.outcome


def large(run: Run) -> Iterator[dict[str, Any]]:
    """The chunks whose content stands elsewhere and is to be fetched."""
    left = _LARGE_BYTES_MAX
    for chunk in run.chunks:
        blob = chunk.get("blob")
        if blob is not None and blob["size"] <= left:
            left -= blob["size"]
            yield chunk


def fill(chunk: dict[str, Any], content: bytes) -> None:
    """Puts the content of a large chunk where that of others is."""
    if chunk["kind"] in ("stdout", "stderr", "text"):
        chunk["text"] = content.decode("utf-8", "replace")
    elif chunk["kind"] != "bytes":
        chunk["content"] = json.loads(content)


class Attended:
    """Runs whose questions are answered here until the last of them has ended."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self.runs = list(runs)
        self._left = {run.id for run in self.runs if not run.ended}
        self._seen = -1
        """The generation of the last state that was looked at: what is older asks what was answered already."""

    @property
    def over(self) -> bool:
        """Whether nothing can be asked any more."""
        return not self._left

    def take(self, event: Event) -> Question | None:
        """Takes in what is told; gives what is to be answered now."""
        if event.run is not None:
            self.end([event.run])
        return self.asked(event.state) if event.state is not None else None

    def end(self, runs: Iterable[Run]) -> None:
        """Nothing more is asked by those of them that have ended."""
        self._left.difference_update(run.id for run in runs if run.ended)

    def asked(self, state: State) -> Question | None:
        """The question in a state, if it is a new one of these runs."""
        if state.generation <= self._seen:
            return None
        self._seen = state.generation
        return state.question if state.question is not None and state.question.run in self._left else None


@contextmanager
def unless_answered() -> Iterator[None]:
    """Somebody else may have answered first, or run or session may have ended."""
    try:
        yield
    except Problem as refused:
        if refused.code not in ("no-question", "run-ended", "session-ended"):
            raise
