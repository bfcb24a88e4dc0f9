"""An exception as a frame tells it."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

from ._frames import to_json

CAUSES_MAX = 8
"""How many exceptions of a chain are told."""
_CHARACTERS = 16_384
"""How much of a traceback is told at first; halved until all of it fits into a line."""
_CHARACTERS_MIN = 64
_ENVELOPE_BYTES = 512
"""Room in the line for what stands around an exception."""
_CALLERS = tuple(str(Path(__file__).with_name(name)) for name in ("_handler.py", "_loading.py", "__main__.py"))
"""Where this package calls the program."""


def words(error: BaseException, line_bytes_max: int) -> dict[str, Any]:
    """The exception and what caused it, in a form that fits into one line."""
    chain, characters = _chain(error), _CHARACTERS
    while True:
        told = _tell(chain, characters)
        if len(to_json(told)) <= line_bytes_max - _ENVELOPE_BYTES:
            return told
        if characters > _CHARACTERS_MIN:
            characters //= 2
        elif len(chain) > 1:
            del chain[len(chain) // 2 :]
        else:
            return {"type": told["type"], "message": told["message"]}


def _chain(error: BaseException) -> list[BaseException]:
    """The exception, its cause, the cause of that, and so on; a loop ends it."""
    chain: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and len(chain) <= CAUSES_MAX and all(following is not known for known in chain):
        chain.append(following)
        context = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or context
    return chain


def _tell(chain: list[BaseException], characters: int) -> dict[str, Any]:
    told: dict[str, Any] | None = None
    for error in reversed(chain):
        one = _one(error, characters)
        if told is not None:
            one["cause"] = told
        told = one
    return told or {}


def _one(error: BaseException, characters: int) -> dict[str, Any]:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        trace = "".join(traceback.format_exception(kind, error, _of_the_program(error.__traceback__), chain=False))
    except Exception as failure:  # a class of the program's may do anything
        trace = f"(the traceback cannot be formatted: {type(failure).__name__})"
    return {
        "type": _clean(name, characters // 4),
        "message": _clean(_text(error, str), characters // 2),
        "repr": _clean(_text(error, repr), characters // 4),
        "traceback": _clean(trace, characters),
    }


def _text(error: BaseException, how: type[str] | Any) -> str:
    """Its text. What a class of the program's does wrong there must not hide the exception."""
    try:
        return str(how(error))
    except Exception as failure:
        return f"({type(error).__name__}; its text cannot be had: {type(failure).__name__})"


def _clean(text: str, characters: int) -> str:
    """Valid Unicode, without its middle where it is too long: what matters stands at the ends."""
    if len(text) > characters:
        head, tail = characters // 4, characters - characters // 4
        text = f"{text[:head]} … {text[-tail:]}"
    return text.encode("utf-8", "replace").decode()


def _of_the_program(trace: TracebackType | None) -> TracebackType | None:
    """The traceback from where the program was called last: what stands above it is this package's and the loop's."""
    at, called = trace, trace
    while at is not None:
        file = at.tb_frame.f_code.co_filename
        if file in _CALLERS or (at is called and file.startswith("<frozen importlib")):
            # The call itself, when nothing was reached by it.
            called = at.tb_next or at
        at = at.tb_next
    return called
