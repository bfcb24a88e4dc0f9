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
"""

from .aio import AsyncSession
from .errors import (
    DaemonGone,
    NotFound,
    NotSaved,
    OutliveError,
    PathAlreadyOpen,
    Problem,
    RunFailed,
    Unreadable,
    Unsaved,
)
from .models import Cell, Event, Notebook, Run, State
from .session import Session

__all__ = [
    "AsyncSession",
    "Cell",
    "DaemonGone",
    "Event",
    "NotFound",
    "NotSaved",
    "Notebook",
    "OutliveError",
    "PathAlreadyOpen",
    "Problem",
    "Run",
    "RunFailed",
    "Session",
    "State",
    "Unreadable",
    "Unsaved",
]
