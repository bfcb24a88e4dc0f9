"""The calls of the API, each written once. A call is a generator: it yields requests and is sent their answers, so
that :class:`~outlive.Session` and :class:`~outlive.AsyncSession` differ in how they wait and in nothing else."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote

from ._wire import Request
from .models import Notebook, Run, SavedPath, State

T = TypeVar("T")
Call = Generator[Request, Any, T]

_OF_THE_NOTEBOOK = "kernel"
"""What the daemon calls a kernel that only the notebook names."""


def absolute(path: str | os.PathLike[str]) -> str:
    """The daemon has another working directory than its clients."""
    return os.path.abspath(os.path.expanduser(os.fspath(path)))


def given(**fields: Any) -> dict[str, Any]:
    """The fields that were given."""
    return {name: value for name, value in fields.items() if value is not None}


def new(
    session_id: str | None,
    kernel: str | None,
    cwd: str | os.PathLike[str] | None,
    start: str | None,
) -> Call[State]:
    """An untitled notebook."""
    place = absolute(cwd) if cwd is not None else os.getcwd()
    body = given(id=session_id, kernel=kernel, cwd=place, start=start, env=dict(os.environ))
    # With an id of the caller it is the same session each time.
    answer = yield Request("POST", "/v1/sessions/new", "make a notebook", body, repeatable=session_id is not None)
    return State.of(answer["session"])


def open_(
    path: str | os.PathLike[str] | None,
    session_id: str | None,
    kernel: str | None,
    start: str | None,
    trust: bool,
) -> Call[tuple[State, str | None]]:
    """A notebook by path, or a session by id; and what its caller should know."""
    full = absolute(path) if path is not None else None
    body = given(path=full, id=session_id, kernel=kernel, start=start, trust="trusted" if trust else None)
    if full is not None:
        body["env"] = dict(os.environ)
    doing = f"open {full or session_id or 'a notebook'}"
    answer = yield Request("POST", "/v1/sessions/open", doing, body, repeatable=True)
    opened, notice = State.of(answer["session"]), None
    if kernel is not None:
        notice = yield from _other_kernel(opened, kernel)
    return opened, notice


def _other_kernel(opened: State, kernel: str) -> Call[str | None]:
    """A session that is there already keeps the kernel with which it was opened, or that its notebook names."""
    has = opened.raw["runtime"]["name"]
    if has == kernel:
        return None
    if has == _OF_THE_NOTEBOOK:
        named = (yield from notebook(opened.id, False)).metadata.get("kernelspec") or {}
        has = named.get("name", has)
    if has == kernel:
        return None
    return (
        f"session {opened.id} is there already and keeps its kernel ({has}): kernel={kernel!r} has no effect; "
        "close it and open it again to change that"
    )


def state(session: str) -> Call[State]:
    """The session as it is."""
    return State.of((yield Request("GET", f"/v1/sessions/{session}", "look at the session", repeatable=True)))


def notebook(session: str, outputs: bool) -> Call[Notebook]:
    """The notebook as it is."""
    target = f"/v1/sessions/{session}/notebook?outputs={'true' if outputs else 'false'}"
    return Notebook.of((yield Request("GET", target, "read the notebook", repeatable=True)))


def edit(session: str, edits: Sequence[dict[str, Any]]) -> Call[list[str]]:
    """Edits, all or nothing; the cell of each."""
    answer = yield Request("POST", f"/v1/sessions/{session}/notebook", "edit", {"edits": list(edits)})
    return list(answer["cells"])


def insert(source: str, kind: str, after: str | None, index: int | None, cell: str | None) -> dict[str, Any]:
    """The edit that puts a new cell."""
    if after is not None and index is not None:
        raise ValueError("give `after` or `index`, not both")
    at: Any = "end"
    if after is not None:
        at = {"after": after}
    elif index is not None:
        at = {"index": index}
    return given(edit="insert", at=at, kind=kind, source=source, id=cell)


def submit(
    session: str,
    code: str | None,
    cells: Sequence[str] | None,
    required: str | None,
    expected: Mapping[str, str] | None,
) -> Call[list[Run]]:
    """Queues work, all or nothing."""
    if expected is not None and cells is None:
        raise ValueError("`expected` says what cells have: give those that are to run")
    if code is not None:
        work: dict[str, Any] = {"kind": "code", "code": code}
    elif cells is not None:
        work = given(kind="cell_ids", cells=list(cells), required=required, expected=expected)
    else:
        work = given(kind="all", required=required)
    answer = yield Request("POST", f"/v1/sessions/{session}/runs", "run", work)
    return [Run.of(view) for view in answer]


def run(session: str, cell: str | None, code: str | None, expected: str | None) -> Call[list[Run]]:
    """Queues a cell, with its source as it was seen perhaps, or code."""
    if (cell is None) == (code is None):
        raise ValueError("give a cell or `code`; `run_all` runs the notebook")
    if cell is None:
        if expected is not None:
            raise ValueError("`expected` is the source of a cell as you saw it; `code` is run as it is")
        return submit(session, code, None, None, None)
    return submit(session, None, [cell], None, {cell: expected} if expected is not None else None)


def run_all(session: str, seen: Notebook | None) -> Call[list[Run]]:
    """Queues all code cells, or those of a notebook as it was seen."""
    if seen is None:
        return submit(session, None, None, None, None)
    cells = {cell.id: cell.source for cell in seen.cells if cell.kind == "code" and cell.source.strip()}
    return submit(session, None, list(cells), None, cells)


def cancel(session: str, run_id: str) -> Call[Run]:
    """Takes a run back, or interrupts it."""
    return Run.of((yield Request("DELETE", f"/v1/sessions/{session}/runs/{run_id}", "cancel the run")))


def answer(session: str, run_id: str, value: str) -> Call[None]:
    """Answers what a run asks."""
    yield Request("POST", f"/v1/sessions/{session}/runs/{run_id}/input", "answer", {"value": value})


def blob(session: str, sha256: str) -> Call[bytes]:
    """The content of a large output."""
    target = f"/v1/sessions/{session}/blobs/{quote(sha256, safe='')}"
    content: bytes = yield Request("GET", target, "read the output", repeatable=True, raw=True)
    return content


def runs(session: str) -> Call[list[Run]]:
    """All runs."""
    views = yield Request("GET", f"/v1/sessions/{session}/runs", "list the runs", repeatable=True)
    return [Run.of(view) for view in views]


def outputs(session: str, cell: str) -> Call[list[dict[str, Any]]]:
    """A cell's outputs in nbformat's form."""
    target = f"/v1/sessions/{session}/cells/{quote(cell, safe='')}/outputs"
    answer: list[dict[str, Any]] = yield Request("GET", target, "read the outputs", repeatable=True)
    return answer


def reports(session: str) -> Call[list[dict[str, Any]]]:
    """The failures of the session, oldest first."""
    target = f"/v1/sessions/{session}/reports"
    answer: list[dict[str, Any]] = yield Request("GET", target, "read the failures", repeatable=True)
    return answer


def save(session: str, path: str | os.PathLike[str] | None, how: str, overwrite: bool) -> Call[tuple[State, SavedPath]]:
    """Saves: the session as it is then, and the file that was written."""
    full = absolute(path) if path is not None else None
    # A session that stays where it is leaves its kernel where it is.
    before = (yield from state(session)) if full is not None and how != "copy" else None
    body = given(path=full, how=how, overwrite=overwrite)
    answer = yield Request("POST", f"/v1/sessions/{session}/save", "save", body)
    after, left = State.of(answer["session"]), None
    if before is not None and before.raw["runtime"]["pid"] is not None and before.base != after.base:
        left = before.base
    return after, SavedPath(str(answer["path"]), left, answer.get("kept"))


def stayed(saved: SavedPath) -> str | None:
    """What somebody should know whose kernel is not beside its notebook any more."""
    if saved.kernel_directory is None:
        return None
    return f"the kernel of {saved} runs on in {saved.kernel_directory}; `restart()` moves it"


def wish(session: str, what: str, body: dict[str, Any] | None = None) -> Call[State]:
    """One of the wishes that answer with the session: interrupt, restart, rest, close, trust."""
    return State.of((yield Request("POST", f"/v1/sessions/{session}/{what}", what, body)))


def events(session: str, after: str, outputs: bool, interactive: bool) -> Request:
    """The stream of what happens in a session."""
    wishes = {"outputs": outputs, "interactive": interactive}
    query = "&".join(f"{name}={'true' if wish else 'false'}" for name, wish in wishes.items())
    target = f"/v1/sessions/{session}/attach?after={after}&{query}"
    return Request("GET", target, "follow the session", stream=True)


def run_events(session: str, run_id: str) -> Request:
    """The stream of one run's output."""
    return Request("GET", f"/v1/sessions/{session}/runs/{run_id}/attach", "follow the run", stream=True)
