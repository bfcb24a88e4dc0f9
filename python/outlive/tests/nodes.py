"""Nodes that misbehave on order: each connection follows the next line of a script."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ANSWER_LIVE = {"node": "n", "ready": True}


@dataclass
class Break:
    """Sends these events and breaks off."""

    events: str


@dataclass
class Hang:
    """Sends these events and then nothing, not even a comment."""

    events: str


@dataclass
class Answer:
    """Answers with this status and body."""

    status: int
    body: dict[str, Any] | list[Any]


@dataclass
class Freeze:
    """Takes every request from now on and says nothing, as a stopped process does."""


@dataclass
class Slow:
    """Answers after it was asked so often for a sign of life."""

    answer: Answer
    signs: int


Script = Break | Hang | Answer | Freeze | Slow


class Node:
    """A fake node. `GET /v1/live` is answered unless it is frozen; all else follows the script."""

    def __init__(self, *script: Script, path: str | None = None) -> None:
        self.script = list(script)
        self.requests: list[str] = []
        self.frozen = False
        self.held: list[socket.socket] = []
        self.late: tuple[socket.socket, Slow] | None = None
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen()
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        """Its address over TCP."""
        return "http://{}:{}".format(*self.listener.getsockname())

    def asked(self) -> list[str]:
        """The requests but those for a sign of life."""
        return [request for request in self.requests if "/v1/live" not in request]

    def close(self) -> None:
        """Nobody listens any more."""
        if self.listener.fileno() < 0:
            return
        # Wakes the accept.
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)
        for connection in self.held:
            connection.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            head = b""
            while b"\r\n\r\n" not in head:
                data = connection.recv(65_536)
                if not data:
                    break
                head += data
            self.requests.append(head.decode())
            if self._answer(connection, head.decode().split(" ")[1]):
                connection.close()
            else:
                self.held.append(connection)

    def _answer(self, connection: socket.socket, target: str) -> bool:
        """Whether the connection is over."""
        if self.frozen:
            return False
        if target == "/v1/live":
            connection.sendall(plain(200, ANSWER_LIVE))
            self._sign_given()
            return True
        step = self.script.pop(0) if self.script else Answer(500, refusal("at the end of its script", status=500))
        if isinstance(step, Freeze):
            self.frozen = True
            return False
        if isinstance(step, Slow):
            self.late = (connection, step)
            return False
        if isinstance(step, Answer):
            connection.sendall(plain(step.status, step.body))
            return True
        head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        connection.sendall((head + step.events).encode())
        return isinstance(step, Break)

    def _sign_given(self) -> None:
        if self.late is not None:
            connection, slow = self.late
            slow.signs -= 1
            if slow.signs == 0:
                connection.sendall(plain(slow.answer.status, slow.answer.body))
                self.late = None


def plain(status: int, body: dict[str, Any] | list[Any]) -> bytes:
    """An answer in JSON."""
    text = json.dumps(body)
    return f"HTTP/1.1 {status} X\r\nContent-Length: {len(text.encode())}\r\n\r\n{text}".encode()


def event(cursor: str, **data: Any) -> str:
    """An event with its cursor."""
    return f"id: {cursor}\ndata: {json.dumps(data)}\n\n"


def output(first: int, *texts: str, attempt: int = 1) -> str:
    """Output of a run, its cursor behind the last chunk."""
    chunks = [{"kind": "stdout", "at": 0, "text": text} for text in texts]
    return event(f"{attempt}.{first + len(texts) - 1}", event="output", attempt=attempt, first=first, chunks=chunks)


def refusal(code: str, status: int = 503, **more: Any) -> dict[str, Any]:
    """A refusal, usually one that passes by itself."""
    return {"code": code, "status": status, "title": "Not now", "detail": f"it is {code}", **more}


def problem(code: str, **more: Any) -> str:
    """The last word of a stream."""
    return f"data: {json.dumps({'event': 'problem', 'problem': refusal(code, **more)})}\n\n"


END = 'data: {"event": "end", "outcome": {"kind": "succeeded"}}\n\n'


def view(session: str = "s") -> dict[str, Any]:
    """A session."""
    runtime = {"state": {"state": "idle"}}
    return {"id": session, "path": None, "untitled": True, "saved": None, "runtime": runtime, "generation": 1}


def run_view(run: str = "r") -> dict[str, Any]:
    """A queued run."""
    return {"id": run, "source": "x", "state": {"state": "queued"}}


Maker = Callable[..., Node]
