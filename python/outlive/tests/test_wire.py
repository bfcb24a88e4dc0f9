"""The bytes, without a daemon."""

from __future__ import annotations

import pytest

from outlive import Unreadable
from outlive._follow import collect
from outlive._wire import EventReader, ResponseReader
from outlive.models import Event, Run

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde"


@pytest.mark.parametrize("answer", [CHUNKED, LENGTH])
def test_a_body_is_the_same_however_its_bytes_come(answer: bytes) -> None:
    for step in range(1, len(answer) + 1):
        reader, body = ResponseReader(), b""
        for at in range(0, len(answer), step):
            body += reader.feed(answer[at : at + step])
        assert (reader.status, body, reader.complete) == (200, b"abcde", True), step


def test_what_is_not_http_is_said() -> None:
    with pytest.raises(Unreadable, match="does not speak HTTP"):
        ResponseReader().feed(b"SSH-2.0-OpenSSH\r\n\r\n")


def test_events_come_whole_and_without_comments() -> None:
    stream = b": quiet\n\nid: 1.2\nevent: output\ndata: {}\n\ndata: a\ndata: b\n\n"
    for step in range(1, len(stream) + 1):
        reader = EventReader()
        events = [event for at in range(0, len(stream), step) for event in reader.feed(stream[at : at + step])]
        assert [(event.id, event.data) for event in events] == [("1.2", "{}"), (None, "a\nb")], step


def test_output_that_is_told_twice_or_taken_back_stands_once() -> None:
    run = Run("r", None, "", "running", None, None)

    def told(first: int, *texts: str) -> None:
        chunks = [{"kind": "stdout", "text": text} for text in texts]
        collect(run, Event("output", {"first": first, "chunks": chunks}, None))

    told(1, "a", "b")
    told(2, "b", "c")
    assert run.text == "abc"
    collect(run, Event("reset", {"keep": 1}, None))
    told(2, "x")
    assert run.text == "ax"
