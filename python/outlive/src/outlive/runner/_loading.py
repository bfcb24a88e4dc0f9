"""What a program does before it takes tasks: loading, and warming up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

Report = Callable[[float | None, float | None, str | None], None]
"""Takes how much is done, of how much, and a message."""


async def load(
    function: Callable[..., Any], report: Report, outside: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Calls a function of the program's to its end.

    It may take a parameter ``progress``, or be a generator; what it yields is reported. It is suspended only where the
    function itself awaits. What it does without awaiting is done within ``outside``.
    """

    def progress(done: float | None = None, total: float | None = None, message: str | None = None) -> None:
        report(done, total, message)

    takes = "progress" in inspect.signature(function).parameters
    with outside():
        returned = function(progress=progress) if takes else function()
        if inspect.isgenerator(returned):
            for step in returned:
                progress(*_parts(step))
    if inspect.isasyncgen(returned):
        async for step in returned:
            progress(*_parts(step))
    elif inspect.isawaitable(returned):
        await returned


def _parts(step: Any) -> tuple[Any, ...]:
    """``(done, total)``, ``(done, total, message)``, a number that is done, or a message."""
    if isinstance(step, tuple):
        return step
    return (None, None, step) if isinstance(step, str) else (step,)
