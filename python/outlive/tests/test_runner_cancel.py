"""How a runner and its tasks are stopped."""

from __future__ import annotations

import select
import signal
from collections.abc import Callable

import pytest
from supervisor import PATIENCE, Supervisor

Start = Callable[..., Supervisor]

HANDLERS = """
    import asyncio, threading, time
    from outlive.runner import Runner, TaskCancelled

    runner = Runner(concurrency=CONCURRENCY)

    @runner.task
    def yields(task):
        try:
            while True:
                yield "."
        except TaskCancelled:
            task.emit("cleaned up")
            raise
        finally:
            task.save("kept")

    @runner.task
    def emits(task):
        while True:
            task.emit(".")

    @runner.task
    def reports(task):
        while True:
            task.progress(1)

    @runner.task
    def checks(task):
        task.emit(".")
        while True:
            time.sleep(0.001)
            task.check()

    @runner.task
    def looks(task):
        task.emit(".")
        while not task.cancelled:
            time.sleep(0.001)
        return "its own way"

    @runner.task
    def fails_then(task):
        task.emit(".")
        try:
            while True:
                task.check()
        finally:
            raise ValueError("in cleaning up")

    @runner.task
    def sleeps(task):
        try:
            task.emit(".")
            time.sleep(600)
        finally:
            task.emit("woken")

    ASYNC

    runner.run()
"""
ASYNC = """
    @runner.task
    async def awaits(task):
        try:
            task.emit(".")
            await asyncio.sleep(600)
        finally:
            task.emit("cleaned up")

    @runner.task
    async def yields_async():
        try:
            while True:
                yield "."
        except asyncio.CancelledError:
            yield "cleaned up"
            raise

    clean = asyncio.Event()

    @runner.task
    async def cleans_up(task):
        try:
            task.emit(".")
            await asyncio.sleep(600)
        finally:
            task.emit("cleaning up")
            await clean.wait()
            task.emit("cleaned up")

    @runner.task
    async def ends_cleaning():
        clean.set()

    @runner.task
    async def awaits_forever(task):
        try:
            await asyncio.sleep(600)
        finally:
            await asyncio.sleep(0)
            task.emit("cleaned up")
"""


def start(runner: Start, concurrency: int = 1, with_async: bool = False) -> Supervisor:
    """The handlers above, ready."""
    text = HANDLERS.replace("CONCURRENCY", str(concurrency)).replace("    ASYNC\n", ASYNC if with_async else "")
    return runner(text).ready()


@pytest.mark.parametrize(("concurrency", "with_async"), [(1, False), (2, False), (1, True)])
def test_a_sync_handler_is_cancelled_where_it_looks(runner: Start, concurrency: int, with_async: bool) -> None:
    it = start(runner, concurrency, with_async)
    for task in ("yields", "emits", "reports", "checks"):
        it.give(task, id=task)
        it.until("progress" if task == "reports" else "chunk", id=task)
        it.cancel(task)
        assert it.outcome(task)["type"] == "cancelled", task
    assert it.text("yields").endswith("cleaned up"), "what it says while it cleans up is taken"
    assert it.kinds("checkpoint", id="yields")
    it.give("looks", id="looks")
    it.until("chunk", id="looks")
    it.cancel("looks")
    assert it.outcome("looks")["value"] == "its own way"
    it.give("fails_then", id="fails")
    it.until("chunk", id="fails")
    it.cancel("fails")
    assert it.outcome("fails")["exception"]["message"] == "in cleaning up"
    # What has ended, and what never was.
    it.cancel("looks")
    it.cancel("nothing")
    it.answers_ping(1)
    assert it.shut_down() == 0


def test_an_async_handler_is_cancelled_where_it_awaits(runner: Start) -> None:
    it = start(runner, 2, with_async=True)
    for task in ("awaits", "yields_async"):
        it.give(task, id=task)
        it.until("chunk", id=task)
        it.cancel(task)
        assert it.outcome(task)["type"] == "cancelled", task
        assert it.text(task).endswith("cleaned up")
    # What comes twice is told once: it does not disturb the cleaning up.
    it.give("cleans_up", id="twice")
    it.until("chunk", id="twice")
    it.cancel("twice")
    it.until("chunk", id="twice", text="cleaning up")
    it.cancel("twice")
    it.answers_ping(1)
    it.give("ends_cleaning", id="ends")
    it.until("result", id="ends")
    assert it.outcome("twice")["type"] == "cancelled"
    assert it.text("twice").endswith("cleaned up")
    # Both at once, so that it is cancelled before its first step.
    for number in range(50):
        it.give("awaits_forever", id=f"t{number}")
        it.cancel(f"t{number}")
        assert it.outcome(f"t{number}")["type"] == "cancelled"
    assert it.shut_down() == 0


def test_a_cancel_of_one_leaves_the_others(runner: Start) -> None:
    it = start(runner, 2)
    it.give("looks", id="stays")
    it.until("chunk", id="stays")
    it.give("checks", id="goes")
    it.until("chunk", id="goes")
    it.cancel("goes")
    assert it.outcome("goes")["type"] == "cancelled"
    it.answers_ping(1)
    assert not it.kinds("result")
    it.cancel("stays")
    assert it.outcome("stays")["type"] == "result"


def test_a_cancelled_error_of_the_handlers_own_is_an_error(runner: Start) -> None:
    it = runner("""
        import asyncio
        from outlive.runner import Runner, TaskCancelled

        runner = Runner()

        @runner.task
        async def cancels_itself():
            asyncio.current_task().cancel()
            await asyncio.sleep(60)

        @runner.task
        def raises():
            raise TaskCancelled("not told to")

        runner.run()
    """).ready()
    it.give("cancels_itself", id="a")
    assert it.outcome("a")["exception"]["type"] == "asyncio.exceptions.CancelledError"
    it.give("raises", id="b")
    assert it.outcome("b")["exception"]["type"] == "outlive.runner.errors.TaskCancelled"


@pytest.mark.parametrize(("concurrency", "with_async"), [(1, False), (2, False), (2, True)])
def test_sigterm_ends_an_idle_runner_in_order(runner: Start, concurrency: int, with_async: bool) -> None:  # A9
    it = start(runner, concurrency, with_async)
    it.signal(signal.SIGINT)
    it.answers_ping(1)
    it.signal(signal.SIGTERM)
    assert it.end() == 143
    assert [frame["type"] for frame in it.said[-2:]] == ["state", "end"]


@pytest.mark.parametrize(
    ("task", "concurrency", "with_async", "last"),
    [
        ("sleeps", 1, False, "woken"),
        ("yields", 1, False, "cleaned up"),
        ("checks", 2, False, "."),
        ("checks", 2, True, "."),
        ("awaits", 1, True, "cleaned up"),
    ],
)
def test_sigterm_gives_up_what_runs(  # A9
    runner: Start, task: str, concurrency: int, with_async: bool, last: str
) -> None:
    it = start(runner, concurrency, with_async)
    it.give(task)
    it.until("chunk")
    it.signal(signal.SIGTERM)
    assert it.end() == 143
    assert it.text().endswith(last)
    assert not it.kinds("result", "error", "cancelled"), "the end of the process settles it"
    assert it.said[-1]["type"] == "end"


def test_a_task_that_was_cancelled_before_sigterm_stays_cancelled(runner: Start) -> None:
    it = start(runner)
    it.give("sleeps")
    it.until("chunk")
    it.cancel()
    it.answers_ping(1)
    it.signal(signal.SIGTERM)
    assert it.end() == 143
    assert len(it.kinds("cancelled")) == 1


def test_a_shutdown_waits_for_what_ends_in_time(runner: Start) -> None:
    it = start(runner)
    it.give("looks")
    it.until("chunk")
    it.send("shutdown", grace_ms=120_000)
    it.until("state", state="shutting_down")
    # It was on its way: nobody begins it any more.
    it.give("emits", id="late")
    it.cancel()
    assert it.end() == 0
    assert [frame["type"] for frame in it.said[-2:]] == ["result", "end"]
    assert not it.kinds("chunk", "error", id="late")


@pytest.mark.parametrize(
    ("task", "concurrency", "with_async"),
    [("sleeps", 1, False), ("checks", 2, False), ("awaits", 2, True), ("yields", 2, True)],
)
def test_a_shutdown_gives_up_what_does_not(runner: Start, task: str, concurrency: int, with_async: bool) -> None:
    it = start(runner, concurrency, with_async)
    it.give(task)
    it.until("chunk")
    it.send("shutdown", grace_ms=100)
    assert it.end() == 0
    assert not it.kinds("result", "error", "cancelled")
    assert it.said[-1]["type"] == "end"


@pytest.mark.parametrize("how", ["signal", "shutdown"])
@pytest.mark.parametrize("form", ["time.sleep(600)", "await asyncio.sleep(600)"])
def test_loading_is_given_up_too(runner: Start, form: str, how: str) -> None:
    it = runner(f"""
        import asyncio, time
        from outlive.runner import Runner

        runner = Runner()

        @runner.load
        {"async " if "await" in form else ""}def weights(progress):
            progress(1, 2)
            {form}

        runner.run()
    """)
    it.until("state", done=1)
    if how == "signal":
        it.signal(signal.SIGTERM)
    else:
        it.send("shutdown", grace_ms=100)
    assert it.end() == (143 if how == "signal" else 0)
    assert it.said[-1]["type"] == "end"
    assert not it.kinds("last_words")


def test_a_program_that_catches_sigterm_itself_is_left_to_it(runner: Start) -> None:
    it = runner("""
        import signal, sys
        from outlive.runner import Runner

        signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
        Runner().run()
    """).ready()
    it.signal(signal.SIGTERM)
    assert it.end() == 7


def test_a_supervisor_that_goes_away_ends_its_runner(runner: Start) -> None:
    it = start(runner)
    it.give("sleeps")
    it.until("chunk")
    it.hang_up()
    assert it.end() == 1


@pytest.mark.parametrize("then", ["pass", "time.sleep(600)"])
def test_a_sigterm_that_comes_to_another_thread_is_heard(runner: Start, then: str) -> None:
    it = runner(f"""
        import signal, threading, time
        from outlive.runner import Runner

        runner = Runner()

        @runner.task
        def waits(task):
            (listener,) = [thread for thread in threading.enumerate() if thread.name == "outlive-listen"]
            threading.Timer(0.2, signal.pthread_kill, (listener.ident, signal.SIGTERM)).start()
            {then}

        runner.run()
    """).ready()
    it.give("waits")
    assert it.end() == 143


def test_a_sigterm_in_the_middle_of_a_frame_is_raised_behind_it(runner: Start) -> None:
    it = runner("""
        import time
        from outlive.runner import Runner, TaskCancelled

        runner = Runner()

        @runner.task
        def floods(task):
            try:
                task.emit(bytes(4 << 20))
                time.sleep(600)
            except TaskCancelled:
                task.emit("whole")
                raise

        runner.run()
    """).ready()
    it.give("floods")
    # It waits for a reader in the middle of the frame.
    assert select.select([it.source], [], [], PATIENCE)[0]
    it.signal(signal.SIGTERM)
    assert it.end() == 143
    assert [frame.get("bytes", frame.get("text")) for frame in it.kinds("chunk")] == [4 << 20, "whole"]


def test_a_runner_that_leaves_while_it_loads_is_never_ready(runner: Start) -> None:
    it = runner("""
        from outlive.runner import Runner

        runner = Runner()

        @runner.load
        def weights(progress):
            runner.exit(4)
            progress(1, 2)

        runner.run()
    """)
    assert it.end() == 4
    assert [frame["state"] for frame in it.kinds("state")] == ["loading", "shutting_down"]


def test_a_handler_ends_its_runner_when_it_says_so(runner: Start) -> None:
    it = runner("""
        import atexit
        from outlive.runner import Runner

        runner = Runner()
        atexit.register(print, "at exit")

        @runner.task
        def leaves():
            runner.exit(5)
            yield "still here"
            return "done"

        runner.run()
    """).ready()
    it.give("leaves")
    assert it.outcome()["value"] == "done"
    assert it.end() == 5
    assert it.text() == "still here"
    assert it.stdout == "at exit\n"
