"""A11: what is raised before ready, while loading, in a task, in a thread; and what aborts the process."""

from __future__ import annotations

import signal
from collections.abc import Callable

import pytest
from supervisor import LINE_MAX, Supervisor

Start = Callable[..., Supervisor]


def test_loading_and_warming_up_are_told_with_their_progress(runner: Start) -> None:
    it = runner("""
        import asyncio
        from outlive.runner import Runner

        runner = Runner()

        @runner.load
        def shards():
            for done in range(1, 3):
                yield done, 2
            yield "tied together"

        @runner.load
        def tokens(progress):
            progress(1, message="read")

        @runner.load
        async def remote(progress):
            await asyncio.sleep(0)
            progress(done=3)

        @runner.load
        async def more():
            yield 4
            await asyncio.sleep(0)
            yield 5, 5, "done"

        @runner.warm_up
        def pass_one():
            pass

        @runner.task
        def nothing():
            pass

        runner.run()
    """).ready()
    told = [
        (frame["state"], frame.get("done"), frame.get("total"), frame.get("message")) for frame in it.kinds("state")
    ]
    assert told == [
        ("loading", None, None, None),
        ("loading", 1, 2, None),
        ("loading", 2, 2, None),
        ("loading", None, None, "tied together"),
        ("loading", 1, None, "read"),
        ("loading", 3, None, None),
        ("loading", 4, None, None),
        ("loading", 5, 5, "done"),
        ("warming_up", None, None, None),
        ("ready", None, None, None),
    ]
    assert it.shut_down() == 0


BEFORE_READY = """
    import sys
    {imported}
    from outlive.runner import Runner

    runner = Runner()
    {declared}

    @runner.load
    {kind} weights():
        {loaded}

    if __name__ == "__main__":
        runner.run()
"""


@pytest.mark.parametrize(
    ("where", "kind", "target"),
    [
        ("imported", "def", "{}"),
        ("imported", "def", "{}:runner"),
        ("declared", "def", None),
        ("declared", "def", "{}"),
        ("loaded", "def", None),
        ("loaded", "async def", None),
        ("loaded", "def", "{}"),
    ],
)
@pytest.mark.parametrize("what", ["import no_such_module", "sys.exit('the weights are gone')", "sys.exit(3)"])
def test_what_is_raised_before_ready_is_told_as_last_words(  # A11
    runner: Start, where: str, kind: str, target: str | None, what: str
) -> None:
    if where == "declared" and target is None and "exit" in what:
        # Nobody can tell it: the interpreter goes without a word.
        return
    parts = dict.fromkeys(("imported", "declared", "loaded"), "pass") | {where: what}
    it = runner(BEFORE_READY.format(kind=kind, **parts), target=target)
    assert it.end() == (3 if what == "sys.exit(3)" else 1)
    assert [frame["type"] for frame in it.said[-2:]] == ["last_words", "end"]
    assert "ready" not in [frame["state"] for frame in it.kinds("state")]
    exception = it.said[-2]["exception"]
    if "import" in what:
        assert (exception["type"], exception["message"]) == ("ModuleNotFoundError", "No module named 'no_such_module'")
        assert exception["repr"] == "ModuleNotFoundError(\"No module named 'no_such_module'\")"
        assert it.stderr.endswith("ModuleNotFoundError: No module named 'no_such_module'\n"), (
            "and where it always stands"
        )
    else:
        assert exception["type"] == "SystemExit"
        assert exception["message"] == ("3" if "3" in what else "the weights are gone")
    first, place = exception["traceback"].splitlines()[:2]
    assert first == "Traceback (most recent call last):"
    assert "program0.py" in place, "the program's own frames stand first, not those of this package"


@pytest.mark.parametrize("form", ["def", "async def"])
def test_what_a_task_raises_is_the_tasks_and_the_runner_lives_on(runner: Start, form: str) -> None:  # A11
    it = runner(f"""
        import sys
        from outlive.runner import Runner

        runner = Runner()

        class Odd(Exception):
            def __str__(self):
                raise RuntimeError("no text")
            __repr__ = __str__

        def chain(length):
            try:
                if length:
                    chain(length - 1)
                raise KeyError("the first")
            except Exception as error:
                raise ValueError(f"link {{length}}") from error

        @runner.task
        {form} raises(what):
            exec(what, globals())

        runner.run()
    """).ready()
    for number, (what, kind, message) in enumerate(
        [
            ("1 / 0", "ZeroDivisionError", "division by zero"),
            ("sys.exit('enough')", "SystemExit", "enough"),
            ("sys.exit(0)", "SystemExit", "0"),
            ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
            ("raise StopIteration(5)", "StopIteration" if form == "def" else "RuntimeError", None),
            ("raise GeneratorExit", "GeneratorExit", ""),
            ("raise BaseException('anything')", "BaseException", "anything"),
            ("raise Odd", "__main__.Odd", "(Odd; its text cannot be had: RuntimeError)"),
            ("import json; json.loads('{{')", "json.decoder.JSONDecodeError", None),
            ("raise ValueError('\\ud800 half')", "ValueError", "? half"),
            ("def f(): f()\nf()", "RecursionError", None),
        ]
    ):
        it.give("raises", {"what": what}, id=f"t{number}")
        outcome = it.outcome(f"t{number}")
        assert outcome["type"] == "error", what
        assert outcome["exception"]["type"] == kind
        assert message in (None, outcome["exception"]["message"])
        assert kind.split(".")[-1] in outcome["exception"]["traceback"].splitlines()[-1]
    it.give("raises", {"what": "chain(2)"}, id="chain")
    exception = it.outcome("chain")["exception"]
    messages = []
    while exception:
        messages.append(exception["message"])
        assert "During handling" not in exception["traceback"], "each link has its own"
        exception = exception.get("cause")
    assert messages == ["link 2", "link 1", "link 0", "'the first'"]
    # Long chains and long texts are cut to what a line takes.
    it.give("raises", {"what": "chain(40)"}, id="long")
    assert it.outcome("long")["exception"]["message"] == "link 40"
    it.give("raises", {"what": "raise ValueError('begins' + '\\x01' * 10 ** 6 + 'ends')"}, id="large")
    message = it.outcome("large")["exception"]["message"]
    assert message.startswith("begins")
    assert message.endswith("ends")
    assert len(message) < LINE_MAX
    assert it.shut_down() == 0
    assert not it.kinds("last_words")


def test_a_loop_of_causes_ends(runner: Start) -> None:
    it = runner("""
        from outlive.runner import Runner

        runner = Runner()

        @runner.task
        def raises():
            one, two = ValueError("one"), ValueError("two")
            one.__cause__, two.__cause__ = two, one
            raise one

        @runner.task
        def hides():
            try:
                raise KeyError("hidden")
            except KeyError:
                raise ValueError("shown") from None

        runner.run()
    """).ready()
    it.give("raises", id="a")
    exception = it.outcome("a")["exception"]
    assert (exception["message"], exception["cause"]["message"]) == ("one", "two")
    assert "cause" not in exception["cause"]
    it.give("hides", id="b")
    assert "cause" not in it.outcome("b")["exception"]


def test_an_exception_in_a_thread_is_told_and_ends_only_that(runner: Start) -> None:
    it = runner("""
        import threading
        from outlive.runner import Runner

        runner = Runner()

        @runner.task
        def starts():
            thread = threading.Thread(target=lambda: 1 / 0, name="engine")
            thread.start()
            thread.join()

        runner.run()
    """).ready()
    it.give("starts")
    assert it.outcome()["type"] == "result"
    (told,) = it.kinds("last_words")
    assert (told["thread"], told["exception"]["type"]) == ("engine", "ZeroDivisionError")
    assert "Exception in thread engine" in it.stderr
    it.answers_ping(1)
    assert it.shut_down() == 0


NATIVE = {
    "abort": ("os.abort()", signal.SIGABRT, "Fatal Python error: Aborted"),
    "segfault": ("ctypes.string_at(0)", signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
    "kill": ("os.kill(os.getpid(), signal.SIGKILL)", signal.SIGKILL, ""),
    "exit": ("os._exit(9)", None, ""),
}


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("how", list(NATIVE))
def test_nothing_that_was_sent_before_an_abort_is_lost(runner: Start, how: str, concurrency: int) -> None:  # A2
    code, number, says = NATIVE[how]
    it = runner(f"""
        import ctypes, os, signal
        from outlive.runner import Runner

        runner = Runner(concurrency={concurrency})

        @runner.task
        def dies():
            for n in range(1_000):
                yield f"{{n}},"
            {code}

        runner.run()
    """).ready()
    it.give("dies")
    assert it.end() == (-number if number else 9)
    assert it.text() == "".join(f"{n}," for n in range(1_000))
    assert says in it.stderr
    if says:
        assert "in dies" in it.stderr, "the Python stack is there"


def test_a_target_that_is_no_runner_is_said(runner: Start) -> None:
    two = "from outlive import Runner\na, b = Runner(), Runner()\nc = 5\n"
    for target, says in [
        ("{}", "has 2 runners; name one"),
        ("{}:c", "c of"),
        ("{}:d", "has no attribute 'd'"),
        ("no_such.module:runner", "No module named 'no_such'"),
    ]:
        it = runner(two, target=target)
        assert it.end() == 1
        assert says in it.kinds("last_words")[0]["exception"]["message"]
    chosen = runner(two, target="{}:b").ready()
    assert chosen.shut_down() == 0


@pytest.mark.parametrize(("ends", "code"), [("shutdown", 0), ("signal", 143), ("exit", 5)])
@pytest.mark.parametrize("guard", ["if __name__ == '__main__':", "if True:"])
def test_a_program_ends_alike_however_it_is_started(runner: Start, guard: str, ends: str, code: int) -> None:
    for target in (None, "{}"):
        it = runner(
            f"""
            from outlive import Runner

            runner = Runner()

            @runner.task
            def leaves():
                runner.exit(5)

            {guard}
                runner.run()
            """,
            target=target,
        ).ready()
        if ends == "shutdown":
            assert it.shut_down() == code
        elif ends == "signal":
            it.signal(signal.SIGTERM)
            assert it.end() == code
        else:
            it.give("leaves")
            assert it.end() == code
        assert it.said[-1]["type"] == "end"
        assert not it.kinds("last_words")
        assert it.stderr == ""


def test_chat_is_declared_with_its_task(runner: Start) -> None:
    it = runner("from outlive import Runner\nRunner(capabilities=['chat']).run()\n")
    assert it.end() == 1
    message = it.kinds("last_words")[0]["exception"]["message"]
    assert message == "a runner that is capable of `chat` needs a task named `chat`"
