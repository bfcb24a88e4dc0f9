"""A client of a cluster whose nodes die, freeze, hand over and are cut off."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodes import (
    END,
    Answer,
    Break,
    Freeze,
    Hang,
    Maker,
    Node,
    Script,
    Slow,
    event,
    output,
    problem,
    refusal,
    run_view,
    view,
)

from outlive import AsyncSession, DaemonGone, Problem, Run, Session


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Maker]:
    """Makes nodes, which are gone afterwards."""
    monkeypatch.setenv("OUTLIVE_PATIENCE_S", "20")
    made: list[Node] = []

    def make(*script: Script, path: str | None = None) -> Node:
        made.append(Node(*script, path=path))
        return made[-1]

    yield make
    for one in made:
        one.close()


def waited(kind: str, address: str) -> Run:
    """Opens the session, submits a run and follows it to its end, with or without asyncio."""
    if kind == "sync":
        session = Session.open(id="s", address=address, token="t")
        return session.run(code="x", check=False)

    async def work() -> Run:
        session = await AsyncSession.open(id="s", address=address, token="t")
        return await session.run(code="x", check=False)

    return asyncio.run(work())


OPENED = Answer(200, {"session": view()})
SUBMITTED = Answer(200, [run_view()])
kinds = pytest.mark.parametrize("kind", ["sync", "async"])


@kinds
def test_a_frozen_node_is_left_for_another_and_nothing_comes_twice(node: Maker, kind: str) -> None:  # E3
    one = node(OPENED, SUBMITTED, Hang(output(1, "a", "b")), Freeze())
    other = node(Break(output(2, "b", "c") + END))
    begun = time.monotonic()
    run = waited(kind, f"{one.url},{other.url}")
    assert run.text == "abc"
    assert time.monotonic() - begun < 3
    assert "Last-Event-ID: 1.2\r\n" in other.asked()[0]
    assert "Authorization: Bearer t\r\n" in other.asked()[0]


@kinds
def test_what_is_taken_back_after_a_takeover_stands_once(node: Maker, kind: str) -> None:  # E10
    reset = event("2.1", event="reset", attempt=2, keep=1)
    one = node(OPENED, SUBMITTED, Break(output(1, "a", "old", "older")))
    other = node(Break(reset + output(2, "new", attempt=2) + END))
    # Asked again, it breaks off at once.
    one.script.append(Break(""))
    assert waited(kind, f"{one.url},{other.url}").text == "anew"


@kinds
@pytest.mark.parametrize("code", ["node-isolated", "draining", "owner-silent", "session-moving", "shutting-down"])
def test_a_node_that_hands_over_or_is_cut_off_is_left_for_another(node: Maker, kind: str, code: str) -> None:  # E2 E4
    one = node(OPENED, SUBMITTED, Break(output(1, "a") + problem(code)), Answer(503, refusal("joining")))
    other = node(Answer(503, refusal("session-moving")), Break(output(2, "b") + END))
    assert waited(kind, f"{one.url},{other.url}").text == "ab"
    assert len(other.asked()) == 2, "it is asked again after it had refused"


@kinds
def test_the_node_that_was_named_is_asked_first(node: Maker, kind: str) -> None:
    named = node(Break(output(2, "b") + END))
    last = problem("draining", elsewhere={"node": "n", "name": "c", "url": named.url})
    one, other = node(OPENED, SUBMITTED, Break(output(1, "a") + last)), node()
    assert waited(kind, f"{one.url},{other.url},{named.url}").text == "ab"
    assert other.asked() == []


@kinds
def test_a_call_that_was_not_done_goes_to_another_node(node: Maker, kind: str) -> None:
    one = node(Answer(503, refusal("session-moving")), Answer(503, refusal("isolated")))
    other = node(OPENED, Answer(503, refusal("joining")), SUBMITTED, Break(output(1, "a") + END))
    assert waited(kind, f"{one.url},{other.url}").text == "a"


@kinds
def test_a_call_that_may_have_been_done_is_not_repeated(node: Maker, kind: str) -> None:
    one, other = node(OPENED, Freeze()), node()
    with pytest.raises(DaemonGone, match="whether it was done is not known"):
        waited(kind, f"{one.url},{other.url}")
    assert other.asked() == []


@kinds
def test_a_slow_answer_of_a_node_that_lives_is_waited_for(node: Maker, kind: str) -> None:
    one, other = node(Slow(OPENED, signs=2), SUBMITTED, Break(output(1, "a") + END)), node()
    assert waited(kind, f"{one.url},{other.url}").text == "a"
    assert other.asked() == []


@kinds
def test_patience_has_an_end(node: Maker, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OUTLIVE_PATIENCE_S", "1")
    one = node(OPENED, SUBMITTED, *[Answer(503, refusal("session-moving"))] * 50)
    with pytest.raises(DaemonGone, match="does not come back"):
        waited(kind, one.url)
    two = node(*[Answer(503, refusal("session-moving"))] * 50)
    with pytest.raises(Problem, match="session-moving"):
        waited(kind, two.url)


def test_the_nodes_of_the_daemon_are_known(
    node: Maker, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(f"{tmp_path_factory.mktemp('c')}")
    monkeypatch.setenv("OUTLIVE_RUNTIME_DIR", str(place))
    monkeypatch.delenv("OUTLIVE_URL", raising=False)
    here = node(OPENED, SUBMITTED, Hang(output(1, "a")), Freeze(), path=str(place / "outlive.sock"))
    other = node(Break(output(2, "b") + END))
    nodes = [{"name": "me", "url": "http://127.0.0.1:1"}, {"name": "other", "url": other.url}]
    text = json.dumps({"version": 1, "me": "me", "token": "of-all", "nodes": nodes})
    (place / "cluster.json").write_text(text)
    session = Session.open(id="s")
    assert session.run(code="x", check=False).text == "ab"
    assert "Authorization: Bearer of-all\r\n" in other.asked()[0]
    assert "Authorization" not in here.asked()[0], "a Unix socket needs no token"


def test_nodes_are_named_by_the_environment(node: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = node(OPENED)
    token = tmp_path / "t"
    token.write_text("of-a-file\n")
    monkeypatch.setenv("OUTLIVE_URL", f"http://127.0.0.1:1, {one.url}/")
    monkeypatch.setenv("OUTLIVE_TOKEN_FILE", str(token))
    Session.open(id="s")
    assert "Authorization: Bearer of-a-file\r\n" in one.asked()[0]
    monkeypatch.setenv("OUTLIVE_URL", "https://a:1")
    with pytest.raises(ValueError, match="TLS"):
        Session.open(id="s")


@kinds
def test_a_call_that_may_be_made_twice_is_when_the_node_it_was_handed_to_dies(node: Maker, kind: str) -> None:  # E1
    gone = Answer(503, refusal("owner-lost", status=503))
    one = node(OPENED, gone, Answer(200, []))
    if kind == "sync":
        assert Session.open(id="s", address=one.url, token="t").runs() == []
        return

    async def ask() -> list[Run]:
        session = await AsyncSession.open(id="s", address=one.url, token="t")
        return await session.runs()

    assert asyncio.run(ask()) == []


def test_calls_that_lose_their_node_together_each_say_whom_they_ask(node: Maker) -> None:  # E1
    one = node(OPENED)
    others = [node(*[Answer(200, [])] * 8) for _ in range(2)]

    async def ask() -> None:
        urls = ",".join([one.url, *(other.url for other in others)])
        session = await AsyncSession.open(id="s", address=urls, token="t")
        one.close()
        await asyncio.gather(*(session.runs() for _ in range(8)))

    asyncio.run(ask())
    for other in others:
        host = other.url.removeprefix("http://")
        assert all(f"Host: {host}\r\n" in request for request in other.asked()), other.asked()
    assert sum(len(other.asked()) for other in others) == 8
