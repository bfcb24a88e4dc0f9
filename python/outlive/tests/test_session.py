"""What a program does with a session, against the real daemon and a real kernel."""

from __future__ import annotations

import asyncio
import json
import os
import uuid
from pathlib import Path

import pytest
from conftest import World

from outlive import AsyncSession, NotFound, NotSaved, PathAlreadyOpen, Problem, RunFailed, Session, Unsaved


def sources(path: Path) -> list[str]:
    """The sources of a file's cells."""
    return ["".join(cell["source"]) for cell in json.loads(path.read_text())["cells"]]


def test_a_notebook_is_opened_edited_run_and_saved(world: World) -> None:
    path = world.notebook("n.ipynb", "a = 20")
    with Session.open("n.ipynb") as session:
        assert session.path == str(path)
        first = session.cells()[0]
        assert (first.source, first.state) == ("a = 20", "idle")
        assert session.state().kernel == "down", "opening starts no kernel"
        session.set_source(first.id, "a = 21")
        second = session.insert("print(a * 2)", after=first.id)
        session.run(first.id)
        assert session.run(second).text == "42\n"
        assert session.outputs(second)[0]["text"] in ("42\n", ["42\n"])
        assert session.save() == str(path)
    assert sources(path) == ["a = 21", "print(a * 2)"]
    saved = json.loads(path.read_text())["cells"][1]
    assert "".join(saved["outputs"][0]["text"]) == "42\n"
    # Leaving it was no end: the kernel still has its memory.
    again = Session.open(id=session.id)
    assert again.run(code="print(a)").text == "21\n"


def test_an_exception_is_the_callers(world: World) -> None:
    session = Session.new()
    with pytest.raises(RunFailed, match="ZeroDivisionError: division by zero"):
        session.run(code="1 / 0")
    assert not session.run(code="1 / 0", check=False).succeeded


def test_an_untitled_notebook_gets_a_path_and_keeps_its_id(world: World) -> None:  # C1
    mine = str(uuid.uuid4())
    session = Session.new(id=mine)
    assert session.id == mine
    assert Session.new(id=mine).id == mine, "the same id is the same session"
    assert session.state().untitled
    assert session.path is None
    cell = session.insert("kept = 1")
    session.run(cell)
    with pytest.raises(Problem) as refused:
        session.save()
    assert refused.value.code == "no-path"
    assert session.save("first") == str(world.files / "first.ipynb"), "the suffix is appended"
    assert not session.state().untitled
    assert Session.open("first.ipynb").id == mine
    assert session.run(code="print(kept)").text == "1\n"
    assert sorted(os.listdir(world.files)) == ["first.ipynb"]


def test_a_collision_is_said_by_name(world: World) -> None:  # C2
    path = world.notebook("taken.ipynb", "theirs = 1")
    holder = Session.open(path)
    before = path.read_bytes()
    other = Session.new()
    other.insert("ours = 1")
    for save in (other.save, other.save_as, other.save_copy):
        with pytest.raises(PathAlreadyOpen) as refused:
            save(path)
        assert str(refused.value) == (
            f"cannot save: {path} is open in session {holder.id}; close it or choose another path"
        )
        assert (refused.value.path, refused.value.session_id) == (str(path), holder.id)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_written_is_said_with_its_reason(world: World) -> None:  # C3
    session = Session.new()
    session.insert("x = 1")
    with pytest.raises(NotSaved) as refused:
        session.save(world.files / "missing" / "n.ipynb")
    assert "missing" in str(refused.value)
    assert session.state().untitled, "the session stays where it was"
    with pytest.raises(Unsaved):
        session.close()
    session.close(discard=True)


def test_what_is_not_there_is_not_found(world: World) -> None:
    with pytest.raises(NotFound, match=r"absent\.ipynb"):
        Session.open("absent.ipynb")
    with pytest.raises(NotFound):
        Session.open(id=str(uuid.uuid4()))
    with pytest.raises(Problem) as both:
        Session.open("n.ipynb", id=str(uuid.uuid4()))
    assert both.value.code == "path-xor-id"


def test_a_session_is_rejoined_by_its_id_after_a_move_and_a_restart_of_the_daemon(world: World) -> None:  # D1
    session = Session.open(world.notebook("a.ipynb", "memory = 'kept'"))
    session.run(session.cells()[0].id)
    assert session.save_as("b") == str(world.files / "b.ipynb")
    world.kill()
    assert session.state().path == str(world.files / "b.ipynb")
    assert session.run(code="print(memory)").text == "kept\n"
    assert Session.open("a.ipynb").id != session.id, "the old path is free"


def test_events_tell_of_a_new_path_and_come_back_after_a_restart_of_the_daemon(world: World) -> None:
    session = Session.new()
    events = session.events(outputs=False)
    state = next(event.state for event in events if event.kind == "session")
    assert state is not None
    assert state.untitled
    session.save("named")
    changed = next(event for event in events if event.kind == "path_changed")
    assert changed.data["path"] == str(world.files / "named.ipynb")
    world.kill()
    session.submit(code="print(1)")
    ended = next(event.run for event in events if event.run is not None and event.run.ended)
    assert ended is not None
    assert ended.succeeded


def test_edits_of_two_are_merged_and_an_outdated_one_is_refused(world: World) -> None:
    path = world.notebook("n.ipynb", "one")
    mine, theirs = Session.open(path), Session.open(path)
    cell = mine.cells()[0].id
    theirs.set_source(cell, "two")
    with pytest.raises(Problem) as refused:
        mine.set_source(cell, "three", expected="one")
    assert refused.value.code == "cell-changed"
    assert mine.cells()[0].source == "two"


def test_the_same_with_await(world: World) -> None:
    path = world.notebook("n.ipynb", "print('hello')", "1 / 0")

    async def work() -> None:
        async with await AsyncSession.open(path) as session:
            first, second = await session.cells()
            assert (await session.run(first.id)).text == "hello\n"
            with pytest.raises(RunFailed, match="ZeroDivisionError"):
                await session.run(second.id)
            holder = await AsyncSession.new()
            with pytest.raises(PathAlreadyOpen) as refused:
                await holder.save(path)
            assert str(refused.value) == (
                f"cannot save: {path} is open in session {session.id}; close it or choose another path"
            )
            with pytest.raises(NotSaved):
                await holder.save(world.files / "missing" / "n.ipynb")
            events = session.events(outputs=False)
            await anext(events)
            await session.save_as("moved")
            async for event in events:
                if event.kind == "path_changed":
                    assert event.data["path"] == str(world.files / "moved.ipynb")
                    break
            await session.close()

    asyncio.run(work())
