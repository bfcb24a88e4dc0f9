"""From the bytes of an answer to its value or its error."""

from __future__ import annotations

import json
from typing import Any

from ._wire import Request
from .errors import DaemonGone, Problem, Unreadable, problem

_REFUSED = 400


def answer(request: Request, status: int | None, body: bytes) -> Any:
    """The value of an answer; `None` when it has none, its bytes where they are wanted.

    Raises:
        Problem: the daemon refused.
        Unreadable: the answer is no JSON.
    """
    if request.raw and status is not None and status < _REFUSED:
        return body
    if not body:
        value: Any = None
    else:
        try:
            value = json.loads(body)
        except ValueError as error:
            raise Unreadable(f"cannot {request.doing}: the daemon's answer ({status}) is not JSON") from error
    if status is None or status < _REFUSED:
        return value
    if isinstance(value, dict):
        raise problem(request.doing, value)
    raise Unreadable(f"cannot {request.doing}: the daemon answered {status} without a reason")


def lost(request: Request, error: OSError) -> DaemonGone:
    """The error for a call whose answer never came."""
    return DaemonGone(
        f"cannot {request.doing}: the daemon went away before it had answered ({error}); "
        "whether it was done is not known: look at the session"
    )


def is_unknown(request: Request, problem: Problem) -> bool:
    """Whether a call is to be made again because the node died that it was handed on to."""
    return request.repeatable and problem.code == "owner-lost"
