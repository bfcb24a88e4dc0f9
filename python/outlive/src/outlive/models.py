"""What the daemon tells. Fields that this version does not know stay in ``raw``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class State:
    """A session at a moment."""

    id: str
    """Its id, which never changes."""
    path: str | None
    """Its notebook's file; ``None`` while it is untitled."""
    untitled: bool
    """Whether it has not been given a path yet."""
    saved: str | None
    """``saved``, ``unsaved``, ``untitled``, ``failing`` or ``conflict``."""
    kernel: str
    """What its kernel does: ``down``, ``launching``, ``idle``, ``busy``, ``unresponsive``, …"""
    generation: int
    """Rises with every change."""
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, view: dict[str, Any]) -> State:
        """From a `SessionView`."""
        saved = view.get("saved")
        return cls(
            id=view["id"],
            path=view.get("path"),
            untitled=bool(view.get("untitled", False)),
            saved=saved.get("state") if saved else None,
            kernel=str(view["runtime"]["state"]["state"]),
            generation=int(view["generation"]),
            raw=view,
        )


@dataclass(frozen=True)
class Cell:
    """A cell at a moment."""

    id: str
    """Its id."""
    kind: str
    """``code``, ``markdown`` or ``raw``."""
    source: str
    """Its source."""
    metadata: dict[str, Any]
    """Its metadata."""
    execution_count: int | None
    """The kernel's count of its last run."""
    state: str
    """``idle``, ``queued`` or ``running``."""
    outputs: list[dict[str, Any]] | None
    """Its outputs in nbformat's form, when they were asked for."""

    @classmethod
    def of(cls, view: dict[str, Any]) -> Cell:
        """From a `CellView`."""
        return cls(
            id=view["id"],
            kind=view["kind"],
            source=view["source"],
            metadata=view.get("metadata") or {},
            execution_count=view.get("execution_count"),
            state=view["state"],
            outputs=view.get("outputs"),
        )


@dataclass(frozen=True)
class Notebook:
    """A notebook at a moment."""

    state_vector: str
    """What it contains: the ``required`` of a run that is to see it."""
    metadata: dict[str, Any]
    """Its metadata."""
    cells: list[Cell]
    """Its cells in order."""

    @classmethod
    def of(cls, view: dict[str, Any]) -> Notebook:
        """From a `NotebookView`."""
        return cls(view["state_vector"], view.get("metadata") or {}, [Cell.of(cell) for cell in view["cells"]])


@dataclass
class Run:
    """One execution. It is kept with its output after the session has gone from memory."""

    id: str
    """Its id."""
    cell: str | None
    """The cell that it runs, by id."""
    source: str
    """What it runs (at most 4 KiB of it)."""
    state: str
    """``queued``, ``running`` or ``ended``."""
    outcome: dict[str, Any] | None
    """How it ended: ``kind`` is ``succeeded``, ``raised``, ``failed``, ``timed_out`` or ``cancelled``."""
    execution_count: int | None
    """The kernel's count."""
    chunks: list[dict[str, Any]] = field(default_factory=list, repr=False)
    """Its output, as it came."""

    @classmethod
    def of(cls, view: dict[str, Any]) -> Run:
        """From a `RunView`."""
        state = view["state"]
        return cls(
            id=view["id"],
            cell=view.get("cell_id"),
            source=view["source"],
            state=state["state"],
            outcome=state.get("outcome"),
            execution_count=view.get("execution_count"),
        )

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self.state == "ended"

    @property
    def succeeded(self) -> bool:
        """Whether it did what it was asked."""
        return self.outcome is not None and self.outcome.get("kind") == "succeeded"

    @property
    def text(self) -> str:
        """What it printed, standard error too, and the text form of its results."""
        parts: list[str] = []
        for chunk in self.chunks:
            if chunk.get("text") is not None:
                parts.append(chunk["text"])
            elif chunk["kind"] in ("display_data", "execute_result"):
                shown = ((chunk.get("content") or {}).get("data") or {}).get("text/plain")
                if shown is not None:
                    parts.append(shown if isinstance(shown, str) else "".join(shown))
        return "".join(parts)

    @property
    def failure(self) -> str | None:
        """Why it did not succeed, in one line."""
        if self.outcome is None or self.succeeded:
            return None
        kind = self.outcome.get("kind")
        if kind == "raised":
            return f"{self.outcome.get('ename')}: {self.outcome.get('evalue')}"
        if kind == "failed":
            return f"{self.outcome.get('summary')} ({self.outcome.get('code')})"
        if kind == "timed_out":
            return f"it took longer than {self.outcome.get('limit_ms')} ms"
        return f"it was cancelled: {self.outcome.get('why')}"


@dataclass(frozen=True)
class Event:
    """Something that happened in a session."""

    kind: str
    """``session``, ``run``, ``path_changed``, ``output``, ``reset``, ``report``, ``gap``, ``end``, …"""
    data: dict[str, Any]
    """The event as the API describes it."""
    cursor: str | None
    """The place to come back to; ``None`` for events that are none."""

    @property
    def state(self) -> State | None:
        """The session's state, for events of kind ``session``."""
        return State.of(self.data["session"]) if self.kind == "session" else None

    @property
    def run(self) -> Run | None:
        """The run, for events of kind ``run``."""
        return Run.of(self.data["run"]) if self.kind == "run" else None
