"""Programs that ask, runs that are taken back, cells as they were seen: against the real daemon and a real kernel."""

from __future__ import annotations

import asyncio

import pytest
from conftest import World

from outlive import AsyncSession, CellChanged, Problem, Question, RunFailed, Session

ASKS = "import getpass\nprint([input('name? ') for _ in range(3)], getpass.getpass('secret? '))"


def test_a_program_asks_whoever_runs_it(world: World) -> None:
    session = Session.new()
    # The kernel is up: nothing but the attached client makes it ask.
    session.run(code="1")
    asked: list[Question] = []

    def reply(question: Question) -> str:
        asked.append(question)
        return str(len(asked))

    assert session.run(code=ASKS, on_question=reply).text == "['1', '2', '3'] 4\n"
    assert [str(question) for question in asked] == ["name? "] * 3 + ["secret? "], "each of them once"
    assert [question.password for question in asked] == [False] * 3 + [True]
    with pytest.raises(RunFailed, match=r"StdinNotImplementedError.*`on_question=input`"):
        session.run(code="input()")


def test_all_cells_may_ask_and_a_run_that_raises_ends_it(world: World) -> None:
    session = Session.open(world.notebook("n.ipynb", "print(input('one'))", "print(input('two'))", "1 / 0"))
    runs = session.run_all(on_question=lambda question: question.prompt.upper(), check=False)
    assert [run.text for run in runs[:2]] == ["ONE\n", "TWO\n"]
    assert runs[2].failure == "ZeroDivisionError: division by zero"


def test_a_question_outlives_the_daemon(world: World) -> None:  # D1
    session = Session.new()
    asked = []

    def reply(question: Question) -> str:
        asked.append(str(question))
        if len(asked) == 1:
            world.kill()
        return question.prompt * 2

    assert session.run(code="print(input('a'), input('b'))", on_question=reply).text == "aa bb\n"
    assert asked == ["a", "b"]


def test_questions_come_as_events_too(world: World) -> None:
    session = Session.new()
    events = session.events(outputs=False, interactive=True)
    next(events)
    (run,) = session.submit(code="print(input('how? '))")
    question = next(event.question for event in events if event.question is not None)
    assert question == Question(run.id, "how? ", False)
    assert session.state().question == question
    session.answer(run, "so")
    assert session.wait(run).text == "so\n"
    with pytest.raises(Problem) as late:
        session.answer(run.id, "again")
    assert late.value.code == "no-question"


def test_the_same_with_await(world: World) -> None:
    path = world.notebook("n.ipynb", "print(input('a'))", "print(input('b'))", "print('c')")

    async def reply(question: Question) -> str:
        await asyncio.sleep(0)
        return question.prompt * 2

    async def work() -> None:
        session = await AsyncSession.open(path)
        a, b, c = await session.cells()
        assert (await session.run(a.id, on_question=reply)).text == "aa\n"
        assert [run.text for run in await session.run_all(on_question=lambda _: "x")] == ["x\n", "x\n", "c\n"]
        events = session.events(outputs=False, interactive=True)
        await anext(events)
        asks, waits = await session.submit(b.id, c.id)
        async for event in events:
            if event.question is not None:
                break
        assert (await session.wait(await session.cancel(waits))).outcome == {"kind": "cancelled", "why": "user"}
        await session.answer(asks, "y")
        assert (await session.wait(asks)).text == "y\n"

    asyncio.run(work())


def test_a_run_is_taken_back(world: World) -> None:
    session = Session.new()
    events = session.events(outputs=False)
    (endless,) = session.submit(code="import time\nwhile True: time.sleep(0.01)")
    (waits,) = session.submit(code="print('never')")
    next(event for event in events if event.run and event.run.id == endless.id and event.run.state == "running")
    assert session.cancel(waits.id).ended
    session.cancel(endless)
    assert not session.wait(endless).succeeded
    assert session.wait(waits).text == ""
    assert session.run(code="print('goes on')").text == "goes on\n"
    with pytest.raises(Problem) as refused:
        session.cancel(waits)
    assert refused.value.code == "run-ended"


def test_a_large_result_is_read_as_text(world: World) -> None:
    session = Session.new()
    large = "class Large:\n    def __repr__(self): return 'x' * 3_000_000\nLarge()"
    run = session.run(code=large)
    assert run.chunks[-1]["blob"]["size"] > 3_000_000, "it is kept beside the log"
    assert run.text == "x" * 3_000_000
    assert len(session.blob(run.chunks[-1]["blob"]["sha256"])) == run.chunks[-1]["blob"]["size"]

    async def work() -> None:
        again = await AsyncSession.open(id=session.id)
        assert (await again.run(code="Large()")).text == "x" * 3_000_000

    asyncio.run(work())


def test_a_cell_that_somebody_has_changed_is_not_run(world: World) -> None:  # C7
    path = world.notebook("n.ipynb", "print('keep')\nprint('danger')", "print('other')")
    mine, theirs = Session.open(path), Session.open(path)
    seen = mine.notebook()
    first = seen.cells[0]
    assert mine.run(first.id, expected=first.source).text == "keep\ndanger\n"
    assert [run.text for run in mine.run_all(seen=seen)] == ["keep\ndanger\n", "other\n"]
    theirs.set_source(first.id, "print('keep')")
    for run in (
        lambda: mine.run(first.id, expected=first.source),
        lambda: mine.run_all(seen=seen),
        lambda: mine.submit(first.id, expected={first.id: first.source}),
    ):
        with pytest.raises(CellChanged, match=r"print\('danger'\)") as refused:
            run()
        assert refused.value.source == "print('keep')", "what it is now"
    assert len(mine.runs()) == 3, "nothing of it was run"
    with pytest.raises(ValueError, match="expected"):
        mine.run(code="1", expected="1")

    async def work() -> None:
        session = await AsyncSession.open(path)
        with pytest.raises(CellChanged, match="cannot run"):
            await session.run(first.id, expected=first.source)
        with pytest.raises(CellChanged, match="cannot run"):
            await session.run_all(seen=seen)

    asyncio.run(work())
