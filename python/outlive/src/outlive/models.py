"""What the daemon tells. Fields that this version does not know stay in ``raw``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """What a program asks with ``input()`` or ``getpass()``. As text it is the prompt, so that ``on_question=input``
    asks whoever sits at the terminal."""

    run: str
    """The run that asks, by id."""
    prompt: str
    """What it asks."""
    password: bool
    """Whether the answer must not be shown."""

    def __str__(self) -> str:
        return self.prompt

    @classmethod
    def of(cls, view: dict[str, Any]) -> Question:
        """From a `Question` of the API."""
        return cls(view["run"], view["prompt"], bool(view["password"]))


class SavedPath(str):
    """The file that was written, as text, and what that left behind."""

    __slots__ = ("kept", "kernel_directory")
    kernel_directory: str | None
    """The working directory of the kernel that runs, when the notebook has moved out of it; ``restart()`` moves the
    kernel too."""
    kept: str | None
    """Where that is kept which stood in the file before and was overwritten."""

    def __new__(cls, path: str, kernel_directory: str | None = None, kept: str | None = None) -> SavedPath:
        made = super().__new__(cls, path)
        made.kernel_directory, made.kept = kernel_directory, kept
        return made


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
    base: str | None
    """The notebook's directory, in which its kernel is started: its file's, or while it is untitled the one in which it
    was made. A kernel that runs stays where it was started when the notebook moves."""
    kernel: str
    """What its kernel does: ``down``, ``launching``, ``idle``, ``busy``, ``unresponsive``, …"""
    question: Question | None
    """What a program asks and nobody has answered yet."""
    generation: int
    """Rises with every change."""
    raw: dict[str, Any] = field(repr=False)

    @classmethod
    def of(cls, view: dict[str, Any]) -> State:
        """From a `SessionView`."""
        saved, question = view.get("saved"), view.get("question")
        return cls(
            id=view["id"],
            path=view.get("path"),
            untitled=bool(view.get("untitled", False)),
            saved=saved.get("state") if saved else None,
            base=view.get("base"),
            kernel=str(view["runtime"]["state"]["state"]),
            question=Question.of(question) if question else None,
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
        """What it printed, standard error too, and the text form of its results. What was too large to be fetched is
        named in its place."""
        return "".join(_text(chunk) for chunk in self.chunks)

    @property
    def failure(self) -> str | None:
        """Why it did not succeed, in one line."""
        if self.outcome is None or self.succeeded:
            return None
        kind = self.outcome.get("kind")
        if kind == "raised":
            ename, evalue = self.outcome.get("ename"), self.outcome.get("evalue")
            why = f"{ename}: {evalue}" if evalue else str(ename)
            # What Jupyter says is about clients in general.
            asks = ename == "StdinNotImplementedError"
            return f"{why} (it asks its user: run it with `on_question=input`)" if asks else why
        if kind == "failed":
            return f"{self.outcome.get('summary')} ({self.outcome.get('code')})"
        if kind == "timed_out":
            return f"it took longer than {self.outcome.get('limit_ms')} ms"
        return f"it was cancelled: {self.outcome.get('why')}"


def _text(chunk: dict[str, Any]) -> str:
    if chunk.get("text") is not None:
        return str(chunk["text"])
    content, blob = chunk.get("content"), chunk.get("blob")
    if content is None and blob is not None:
        return f"[an output of {blob['size']} bytes: session.blob({blob['sha256']!r})]\n"
    if chunk["kind"] not in ("display_data", "execute_result"):
        return ""
    shown = ((content or {}).get("data") or {}).get("text/plain", "")
    return shown if isinstance(shown, str) else "".join(shown)


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
    def question(self) -> Question | None:
        """What a program asks at this moment, for events of kind ``session``; it is told again until it is answered."""
        state = self.state
        return state.question if state else None

    @property
    def run(self) -> Run | None:
        """The run, for events of kind ``run``."""
        return Run.of(self.data["run"]) if self.kind == "run" else None
