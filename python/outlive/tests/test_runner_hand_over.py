"""E2: a runner whose node gives its work away stops its tasks at a step, and nothing that was done is done again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from supervisor import Supervisor

Start = Callable[..., Supervisor]

SYNC = """
    import sys
    from outlive.runner import Runner, Task

    runner = Runner()

    @runner.task
    def count(task: Task):
        for n in range(task.checkpoint or 0, 100):
            print("step", n, flush=True)
            yield str(n)
            if n == 2:
                sys.stdin = None
                while not task.hands_over:
                    pass
            task.save(n + 1)

    runner.run()
"""

ASYNC = """
    import asyncio
    from outlive.runner import Runner, Task

    runner = Runner(concurrency=2)

    @runner.task
    async def count(task: Task):
        for n in range(task.checkpoint or 0, 100):
            print("step", n, flush=True)
            yield str(n)
            while n == 2 and not task.hands_over:
                await asyncio.sleep(0)
            task.save(n + 1)

    runner.run()
"""


@pytest.mark.parametrize("program", [SYNC, ASYNC])
def test_a_task_that_saves_its_state_stops_where_it_saves_it_next(runner: Start, program: str) -> None:
    it = runner(program).ready()
    it.give("count")
    it.until("chunk", text="2")
    it.send("shutdown", grace_ms=60_000, hand_over=True)
    assert it.outcome()["type"] == "stopped"
    assert [frame["state"] for frame in it.kinds("checkpoint")] == [1, 2, 3], "the step that had begun is done"
    assert it.end() == 0
    assert it.stdout.splitlines() == ["step 0", "step 1", "step 2"]
    again = runner(program).ready()
    (again.place / "state").write_text("3")
    again.give("count", attempt=2, checkpoint={"seq": 3, "file": str(again.place / "state")})
    again.until("chunk", text="3", attempt=2)
    again.until("chunk", text="9", attempt=2)


def test_a_task_that_ends_in_time_ends_and_one_that_was_not_begun_goes_on_elsewhere(runner: Start) -> None:
    it = runner("""
        from outlive.runner import Runner, Task

        runner = Runner()

        @runner.task
        def work(task: Task):
            yield "begun"
            while not task.hands_over:
                pass
            return "done"

        runner.run()
    """).ready()
    it.give("work", id="a")
    it.until("chunk", text="begun")
    # More than it takes at a time.
    it.give("work", id="b")
    it.send("shutdown", grace_ms=60_000, hand_over=True)
    assert it.end() == 0
    assert sorted((frame["id"], frame["type"]) for frame in it.kinds("result", "stopped")) == [
        ("a", "result"),
        ("b", "stopped"),
    ]


def test_a_handler_that_saves_nothing_is_given_up_without_a_word_and_a_cancel_stays_one(runner: Start) -> None:
    # E8
    program = """
        from outlive.runner import Runner, Task

        runner = Runner()

        @runner.task
        def work(task: Task):
            yield "begun"
            while True:
                task.check()

        runner.run()
    """
    it = runner(program).ready()
    it.give("work")
    it.until("chunk", text="begun")
    it.send("shutdown", grace_ms=200, hand_over=True)
    assert it.end() == 0
    assert not it.kinds("stopped", "result")
    it = runner(program).ready()
    it.give("work")
    it.until("chunk", text="begun")
    it.cancel()
    it.send("shutdown", grace_ms=60_000, hand_over=True)
    assert it.outcome()["type"] == "cancelled"


def test_tasks_that_are_replayed_exactly_are_named_in_the_hello(runner: Start) -> None:
    it = runner("""
        from outlive.runner import Runner

        runner = Runner()

        @runner.task(exact=True)
        def sample():
            pass

        @runner.task(name="other")
        def another():
            pass

        runner.run()
    """).ready()
    [hello] = it.kinds("hello")
    assert (hello["tasks"], hello["exact"]) == (["other", "sample"], ["sample"])
