"""HTTP/1.1 and server-sent events without any input or output, so that both clients share them.

One request goes over one connection (`Connection: close`), as the command line does it: over a Unix socket that costs
some microseconds, and nothing has to be kept alive across a restart of the daemon.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import Unreadable

_HEAD_BYTES_MAX = 65_536
_LINE_BYTES_MAX = 256 << 20


@dataclass(frozen=True)
class Request:
    """A call of the API."""

    method: str
    target: str
    doing: str
    """What is tried, for errors: ``save``, ``open analysis.ipynb``."""
    body: dict[str, Any] | None = None
    repeatable: bool = False
    """Whether asking again does no harm when an answer was lost."""
    stream: bool = False
    raw: bool = False
    """Whether the answer is bytes and not JSON."""
    last_event_id: str | None = None

    def encode(self, host: str, token: str | None) -> bytes:
        """The bytes of the request."""
        payload = b"" if self.body is None else json.dumps(self.body).encode()
        accept = "text/event-stream" if self.stream else "application/json"
        lines = [
            f"{self.method} {self.target} HTTP/1.1",
            f"Host: {host}",
            f"Accept: {accept}",
            "Outlive-Api: 1",
            "Connection: close",
        ]
        if self.body is not None:
            lines += ["Content-Type: application/json", f"Content-Length: {len(payload)}"]
        elif self.method != "GET":
            lines.append("Content-Length: 0")
        if token is not None:
            lines.append(f"Authorization: Bearer {token}")
        if self.last_event_id is not None:
            lines.append(f"Last-Event-ID: {self.last_event_id}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + payload


class ResponseReader:
    """Takes the bytes of one answer as they come, and gives its status and pieces of its body."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.complete = False
        self._buffer = b""
        self._left: int | None = None
        """What is left of the body or of the present chunk; ``None`` before a chunk's length."""
        self._chunked = False
        self._until_close = False

    def feed(self, data: bytes) -> bytes:
        """Takes bytes, gives what they contain of the body. No bytes: the connection has ended."""
        if not data:
            self.complete = self.complete or self._until_close
            return b""
        self._buffer += data
        if self.status is None and not self._head():
            return b""
        return self._body()

    def _head(self) -> bool:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            if len(self._buffer) > _HEAD_BYTES_MAX:
                raise Unreadable("the daemon's answer has no end of its head")
            return False
        lines = head.decode("latin-1").split("\r\n")
        words = lines[0].split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():  # noqa: PLR2004
            raise Unreadable(f"what listens there does not speak HTTP: {lines[0][:80]!r}")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        self.status = int(words[1])
        self._buffer = rest
        self._chunked = "chunked" in fields.get("transfer-encoding", "").lower()
        length = fields.get("content-length")
        if not self._chunked:
            self._left = int(length) if length is not None and length.isdigit() else None
            self._until_close = self._left is None
            self.complete = self._left == 0
        return True

    def _body(self) -> bytes:
        if self._until_close:
            out, self._buffer = self._buffer, b""
            return out
        parts: list[bytes] = []
        while not self.complete:
            if self._left is None:
                line, found, rest = self._buffer.partition(b"\r\n")
                if not found:
                    break
                self._buffer = rest
                if not line:
                    continue
                self._left = int(line.split(b";")[0], 16)
                if self._left == 0:
                    self.complete = True
                    break
            taken = self._buffer[: self._left]
            if not taken:
                break
            self._buffer = self._buffer[len(taken) :]
            self._left -= len(taken)
            parts.append(taken)
            if self._left == 0:
                self._left = None if self._chunked else 0
                self.complete = not self._chunked
        return b"".join(parts)


@dataclass(frozen=True)
class RawEvent:
    """A server-sent event."""

    id: str | None
    data: str


class EventReader:
    """Takes the body of a stream, gives its events."""

    def __init__(self) -> None:
        self._buffer = b""
        self._id: str | None = None
        self._data: list[str] = []

    def feed(self, data: bytes) -> Iterator[RawEvent]:
        """Takes bytes, gives the events that they complete. Comments are left out."""
        self._buffer += data
        if len(self._buffer) > _LINE_BYTES_MAX:
            raise Unreadable("an event of the stream has no end")
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            name, _, value = line.rstrip(b"\r").decode("utf-8", "replace").partition(":")
            value = value.removeprefix(" ")
            if name == "id":
                self._id = value
            elif name == "data":
                self._data.append(value)
            elif not name and not value and self._data:
                yield RawEvent(self._id, "\n".join(self._data))
                self._id, self._data = None, []
