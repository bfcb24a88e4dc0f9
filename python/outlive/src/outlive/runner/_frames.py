"""Frames: a JSON object on a line, and raw bytes behind it where the line says so. No input and no output here."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from .errors import FrameTooLarge, ProtocolViolation

VERSION = 1
"""The newest version of the protocol that is spoken here."""
LINE_BYTES_MAX = 65_536
"""Longest line, with its newline."""
BYTES_MAX = 16 << 20
"""Most raw bytes of a frame."""
DEPTH_MAX = 100
"""Deepest JSON: readers in other languages refuse more than 128 levels, and a frame has some of its own."""
DIGITS_MAX = 300
"""Longest integer, in digits: readers take a longer one for no number."""
_SHOWN_BYTES = 80
"""How much of a bad line is shown."""

Buffer: TypeAlias = bytes | bytearray | memoryview

_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))
_LONG_INTEGER = re.compile(rb"\d{%d}" % (DIGITS_MAX + 1))


class Limits(NamedTuple):
    """What the supervisor takes."""

    line: int = LINE_BYTES_MAX
    payload: int = BYTES_MAX


@dataclass(frozen=True)
class Frame:
    """A frame that has come."""

    kind: str
    fields: dict[str, Any]
    payload: bytes | None = None


def to_json(value: object) -> bytes:
    """The value as JSON that every reader takes.

    Raises:
        TypeError: it contains something that JSON has no form for.
        ValueError: it contains NaN, an infinity, half a surrogate pair, a loop, or is too deep or too large a number.
    """
    text = _ENCODER.encode(value).encode()
    if text.count(b"[") + text.count(b"{") > DEPTH_MAX or _LONG_INTEGER.search(text):
        _check(value)
    return text


def _check(value: object) -> None:
    """Refuses what is valid JSON and is not taken everywhere."""
    level: list[object] = [value]
    for _ in range(DEPTH_MAX + 1):
        if not level:
            return
        for item in level:
            if isinstance(item, int) and not isinstance(item, bool) and abs(item) >= 10**DIGITS_MAX:
                raise ValueError(f"an integer of more than {DIGITS_MAX} digits cannot be sent; send it as text")
        level = [inner for item in level for inner in _inside(item)]
    raise ValueError(f"JSON of more than {DEPTH_MAX} levels cannot be sent; send it as text or flatten it")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, list | tuple) else []


def encode(fields: dict[str, Any], limits: Limits, payload: Buffer | None = None) -> list[Buffer]:
    """The buffers of a frame, in order.

    Raises:
        FrameTooLarge: the line or the payload is over its limit.
        TypeError, ValueError: see :func:`to_json`.
    """
    if payload is not None:
        view = memoryview(payload)
        payload, size = view.cast("B") if view.c_contiguous else view.tobytes(), view.nbytes
        if size > limits.payload:
            raise FrameTooLarge(f"the content of a {fields['type']}", size, limits.payload)
        fields = {**fields, "bytes": size}
    line = to_json(fields) + b"\n"
    if len(line) > limits.line:
        raise FrameTooLarge(f"a {fields['type']}", len(line), limits.line)
    return [line] if payload is None else [line, payload, b"\n"]


def encode_text(head: bytes, text: str, limits: Limits) -> list[Buffer]:
    """A frame whose last field is text; ``head`` is all before that. A task may have a great many of them.

    Raises:
        FrameTooLarge: the line is over its limit.
        ValueError: the text has half a surrogate pair.
    """
    line = head + _ENCODER.encode(text).encode() + b"}\n"
    if len(line) > limits.line:
        raise FrameTooLarge("a text", len(line), limits.line)
    return [line]


class FrameReader:
    """Takes bytes as they come and gives frames. No length is believed before it is checked."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: tuple[dict[str, Any], int] | None = None
        """A frame whose raw bytes have not come yet, and how many they are."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Takes bytes, gives the frames that they complete.

        Raises:
            ProtocolViolation: they are no frames.
        """
        self._buffer += data
        while True:
            if self._waiting is None and not self._line():
                return
            assert self._waiting is not None  # noqa: S101 - for the type checker
            fields, count = self._waiting
            if count < 0:
                self._waiting = None
                yield Frame(fields["type"], fields)
                continue
            if len(self._buffer) < count + 1:
                return
            if self._buffer[count] != ord("\n"):
                raise ProtocolViolation(f"the supervisor sent {count} raw bytes without a newline behind them")
            payload = bytes(self._buffer[:count])
            del self._buffer[: count + 1]
            self._waiting = None
            yield Frame(fields["type"], fields, payload)

    def _line(self) -> bool:
        """Takes a line, if there is a whole one."""
        end = self._buffer.find(b"\n", 0, LINE_BYTES_MAX)
        if end < 0:
            if len(self._buffer) >= LINE_BYTES_MAX:
                raise ProtocolViolation(f"the supervisor sent a line of more than {LINE_BYTES_MAX} bytes")
            return False
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        shown = line[:_SHOWN_BYTES]
        try:
            fields = json.loads(line.decode())
        except (ValueError, RecursionError) as error:
            raise ProtocolViolation(f"the supervisor sent a line that is not JSON in UTF-8: {shown!r}") from error
        if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
            raise ProtocolViolation(f"the supervisor sent a line that is no frame: {shown!r}")
        count = fields.get("bytes", -1)
        if "bytes" in fields and (type(count) is not int or not 0 <= count <= BYTES_MAX):
            raise ProtocolViolation(f"the supervisor announced {count!r} raw bytes; the limit is {BYTES_MAX}")
        self._waiting = (fields, count)
        return True
