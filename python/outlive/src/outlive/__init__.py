"""Notebook sessions that outlive their clients.

    from outlive import Session

    with Session.open("analysis.ipynb") as session:
        cell = session.cells()[0]
        run = session.run(cell.id)
        print(run.text)
        session.save()

A session lives in the daemon. Leaving it (the end of the ``with`` block, or of the program) leaves it as it is: what
runs goes on, and :meth:`Session.open` with its id or its path comes back to it. :class:`AsyncSession` is the same with
``await``.

:mod:`outlive.runner` is the other side: programs that serve tasks.
"""

from typing import TYPE_CHECKING, Any

from .errors import (
    CellChanged,
    DaemonGone,
    NotFound,
    Notice,
    NotSaved,
    OutliveError,
    PathAlreadyOpen,
    Problem,
    RunFailed,
    Unreadable,
    Unsaved,
)
from .models import Cell, Event, Notebook, Question, Run, SavedPath, State

if TYPE_CHECKING:
    from .aio import AsyncSession
    from .runner import Runner
    from .session import Session

__version__ = "0.1.0"

_LATER = {"AsyncSession": "aio", "Runner": "runner", "Session": "session"}
"""What is imported when it is first asked for: a runner starts without the client, and a client without asyncio."""


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib  # noqa: PLC0415

    return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)


__all__ = [
    "AsyncSession",
    "Cell",
    "CellChanged",
    "DaemonGone",
    "Event",
    "NotFound",
    "NotSaved",
    "Notebook",
    "Notice",
    "OutliveError",
    "PathAlreadyOpen",
    "Problem",
    "Question",
    "Run",
    "RunFailed",
    "Runner",
    "SavedPath",
    "Session",
    "State",
    "Unreadable",
    "Unsaved",
]
