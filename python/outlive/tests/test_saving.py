"""What a program is told of its files, against the real daemon."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from conftest import World

from outlive import AsyncSession, NotFound, Notice, NotSaved, PathAlreadyOpen, Problem, Session, Unreadable
from outlive._answer import answer
from outlive._wire import Request

FAULTY = "OUTLIVE_TEST_FAULTY_PLACES"
"""The directory that a test's second half finds inside of a namespace where the faults are real."""


def test_a_kernel_that_stays_behind_is_said(world: World) -> None:  # C1
    session = Session.open(world.notebook("a.ipynb", "1"))
    here, there = str(world.files), world.files / "there"
    there.mkdir()
    assert session.state().base == here
    # No kernel runs: there is nothing to say, which a warning (an error in these tests) would be.
    assert session.save_as("b").kernel_directory is None
    session.run(code="import os")
    assert session.save_as("c").kernel_directory is None, "it is where its notebook is"
    with pytest.warns(Notice, match=rf"runs on in {here}; `restart\(\)` moves it") as told:
        moved = session.save_as("there/d")
    assert told[0].filename == __file__, "it is said where save_as was called"
    assert (moved, moved.kernel_directory) == (str(there / "d.ipynb"), here)
    assert session.state().base == str(there)
    assert session.run(code="print(os.getcwd())").text == f"{here}\n"
    copy = session.save_copy(world.files / "e")
    assert copy == str(world.files / "e.ipynb"), "the path that was written"
    assert (session.path, copy.kernel_directory) == (str(there / "d.ipynb"), None)

    async def work() -> None:
        again = await AsyncSession.open(id=session.id)
        with pytest.warns(Notice, match="runs on in"):
            assert (await again.save_as("f")).kernel_directory == str(there)
        assert await again.save_copy("g") == str(world.files / "g.ipynb")
        assert (await again.state()).base == here

    asyncio.run(work())


def test_a_kernel_that_is_asked_for_in_vain_is_said(world: World) -> None:
    path = world.notebook("n.ipynb", "1")
    first = Session.open(path, kernel="python3")
    assert Session.open(path, kernel="python3").id == first.id, "it has it: nothing is said"
    with pytest.warns(Notice, match="keeps its kernel .python3.: kernel='julia' has no effect") as told:
        assert Session.open(path, kernel="julia").id == first.id
    assert told[0].filename == __file__
    untitled = Session.new()

    async def work() -> None:
        await AsyncSession.open(id=untitled.id, kernel="python3")
        with pytest.warns(Notice, match="kernel='julia' has no effect"):
            await AsyncSession.open(id=untitled.id, kernel="julia")

    asyncio.run(work())


def test_an_id_that_is_none_is_said_in_words(world: World) -> None:
    with pytest.raises(Problem, match=r"an id is a UUID, for instance .*`path`"):
        Session.open(id="analysis.ipynb")
    with pytest.raises(NotFound, match=r"`outlive ps -a` lists"):
        Session.open(id=str(uuid.uuid4()))


def test_each_place_that_cannot_be_written_is_said_with_its_reason(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:  # C3
    if FAULTY in os.environ:
        request.getfixturevalue("world")
        in_faulty_places(Path(os.environ[FAULTY]))
        return
    (tmp_path / "frozen").mkdir()
    script = """set -e
        mkdir $D/full
        mount -t tmpfs -o size=64k none $D/full
        mount --bind $D/frozen $D/frozen
        mount -o remount,ro,bind $D/frozen
        exec "$0" -m pytest -q -p no:cacheprovider "$1" """
    inside = f"{__file__}::{request.node.name}"
    unshare = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, sys.executable, inside]
    environment = {**os.environ, "D": str(tmp_path), FAULTY: str(tmp_path)}
    done = subprocess.run(unshare, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def in_faulty_places(faulty: Path) -> None:
    session = Session.new()
    session.insert("x" * 200_000)
    reasons = {
        "full/n": ("disk-full", "is full"),
        "frozen/n": ("not-writable", "Read-only file system"),
        "missing/n": ("no-such-directory", "missing"),
        "n" * 300: ("bad-path", "its name is longer"),
    }

    def is_said(refused: Problem, code: str, reason: str) -> None:
        assert (refused.code, type(refused)) == (code, NotSaved), refused
        assert str(refused).startswith("cannot save: ")
        assert reason in str(refused)
        assert refused.hint or code == "bad-path", "it says what to do"

    for place, said in reasons.items():
        for save in (session.save, session.save_as, session.save_copy):
            with pytest.raises(NotSaved) as refused:
                save(faulty / place)
            is_said(refused.value, *said)

    async def work() -> None:
        again = await AsyncSession.open(id=session.id)
        for place, said in reasons.items():
            for save in (again.save, again.save_as, again.save_copy):
                with pytest.raises(NotSaved) as refused:
                    await save(faulty / place)
                is_said(refused.value, *said)

    asyncio.run(work())
    assert session.state().untitled, "it stays where it was"
    assert os.listdir(faulty / "full") == []


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("path-already-open", 409, PathAlreadyOpen),
        ("not-writable", 403, NotSaved),
        ("not-writable", 503, NotSaved),
        ("disk-full", 507, NotSaved),
        ("read-only", 403, NotSaved),
        ("no-such-directory", 422, NotSaved),
        ("is-a-directory", 422, NotSaved),
        ("bad-path", 422, NotSaved),
        ("claim-unavailable", 503, NotSaved),
        ("file-changed", 409, NotSaved),
        ("file-deleted", 409, NotSaved),
        ("file-exists", 409, NotSaved),
        ("volume-not-here", 409, NotSaved),
        ("some-later-one", 418, Problem),
    ],
)
def test_no_refusal_of_a_save_is_unreadable(code: str, status: int, kind: type[Problem]) -> None:  # C2, C3
    facts = '{"path": "/n.ipynb", "session": "s"}'
    body = f'{{"code": "{code}", "status": {status}, "title": "T", "detail": "why", "facts": {facts}}}'
    with pytest.raises(Problem) as refused:
        answer(Request("POST", "/v1/sessions/s/save", "save"), status, body.encode())
    assert type(refused.value) is kind
    assert not isinstance(refused.value, Unreadable)
    assert (
        "/n.ipynb is open in session s" in str(refused.value)
        if kind is PathAlreadyOpen
        else "why" in str(refused.value)
    )


def test_a_directory_that_is_not_there_is_not_found_when_it_is_opened(world: World) -> None:
    with pytest.raises(NotFound):
        Session.open("none/n.ipynb")
