"""The channel: what comes that should not, what answers while a handler computes, and children of the process."""

from __future__ import annotations

import json
import random
import signal
from collections.abc import Callable

import pytest
from supervisor import BYTES_MAX, LINE_MAX, Supervisor

from outlive.runner import ProtocolViolation
from outlive.runner._frames import Frame, FrameReader

Start = Callable[..., Supervisor]

ECHO = """
    from outlive.runner import Runner

    runner = Runner()

    @runner.task
    def echo(value=None):
        return value

    @runner.task
    def waits(task):
        task.emit("waiting")
        while True:
            task.check()

    runner.run()
"""
HELLO = b'{"type":"hello","version":1,"runner":"r","incarnation":1,"line_max":65536,"bytes_max":16777216}\n'


@pytest.mark.parametrize(
    ("garbage", "says"),
    [
        (b"not JSON\n", "a line that is not JSON in UTF-8: b'not JSON'"),
        (b'{"type":"ping","n":"\xff"}\n', "not JSON in UTF-8"),
        (b"[1, 2]\n", "a line that is no frame: b'[1, 2]'"),
        (b'{"n": 1}\n', "a line that is no frame"),
        (b"x" * (LINE_MAX + 1), "a line of more than 65536 bytes"),
        (b'{"type":"task","bytes":%d}\n' % (BYTES_MAX + 1), f"announced {BYTES_MAX + 1} raw bytes; the limit is"),
        (b'{"type":"task","bytes":-1}\n', "announced -1 raw bytes"),
        (b'{"type":"task","bytes":1e3}\n', "announced 1000.0 raw bytes"),
        (b'{"type":"later","bytes":3}\nabcd\n', "sent 3 raw bytes without a newline behind them"),
        (b'{"type":"ping"}\n', "a 'ping' whose field 'n' is None"),
        (b'{"type":"task","id":5,"attempt":1,"task":"echo","key":"k"}\n', "a 'task' whose field 'id' is 5"),
        (
            b'{"type":"task","id":"a","attempt":1,"task":"echo","key":"k","bytes":1}\n{\n',
            "the input of a task that is not JSON",
        ),
        (b"[" * 60_000 + b"\n", "not JSON in UTF-8"),
    ],
)
def test_what_is_no_frame_ends_the_runner_with_a_word(runner: Start, garbage: bytes, says: str) -> None:  # B1
    it = runner(ECHO).ready()
    it.give("waits", id="running")
    it.until("chunk")
    it.raw(garbage)
    assert it.end() == 1
    (told,) = it.kinds("last_words")
    assert told["exception"]["type"] == "outlive.runner.errors.ProtocolViolation"
    assert says in told["exception"]["message"]
    assert it.said[-1]["type"] == "end"
    assert says in it.stderr, "and where people look"


def test_the_first_frame_must_be_a_hello_and_a_task_waits_for_ready(runner: Start) -> None:
    it = runner(ECHO, hello=False)
    it.send("ping", n=1)
    assert it.end() == 1
    assert "began with a 'ping' in the place of a hello" in it.kinds("last_words")[0]["exception"]["message"]
    it = runner("""
        import time
        from outlive.runner import Runner

        runner = Runner()

        @runner.load
        def long():
            yield 1
            time.sleep(600)

        runner.run()
    """)
    it.until("state", done=1)
    it.give("echo")
    assert it.end() == 1
    assert "gave a task to a runner that is loading" in it.kinds("last_words")[0]["exception"]["message"]


def test_half_a_frame_waits_for_its_other_half(runner: Start) -> None:  # B1
    it = runner(ECHO).ready()
    it._given.add(("a", 1))
    whole = b'{"type":"task","id":"a","attempt":1,"task":"echo","key":"k","bytes":9}\n"payload"\n'
    for at in range(1, len(whole) - 1):
        it.raw(whole[at - 1 : at])
    it.raw(whole[len(whole) - 2 :])
    assert it.outcome()["value"] == "payload"
    it.raw(b'{"type":"pi')
    it.hang_up()
    assert it.end() == 1


def test_frames_and_fields_of_later_versions_are_skipped(runner: Start) -> None:
    it = runner(ECHO).ready()
    it.send("later", b"\n{not a frame}\n", id=1)
    it.send("ping", n=7, later=True)
    it._pings.append(7)
    it.until("pong", n=7)


def test_smaller_limits_of_the_supervisor_are_kept(runner: Start) -> None:
    it = runner(ECHO, hello=False)
    it.send("hello", version=1, runner="r", incarnation=1, line_max=2_000, bytes_max=3_000)
    it.ready()
    it.give("echo", {"value": "x" * 2_500}, id="fits")
    assert json.loads(it.outcome("fits")["payload"]) == "x" * 2_500
    it.give("echo", {"value": "x" * 4_000}, id="does not")
    assert "over the limit of 3,000 bytes" in it.outcome("does not")["exception"]["message"]


def test_any_pieces_give_the_same_frames() -> None:
    frames = [
        HELLO,
        b'{"type":"task","bytes":0}\n\n',
        b'{"type":"task","bytes":5}\n\n\n\n\n\n\n',
        b'{"type":"ping","n":1}\n',
        b'{"type":"pad","p":"%s"}\n' % (b"x" * (LINE_MAX - 22)),
    ]
    assert len(frames[-1]) == LINE_MAX
    stream = b"".join(frames)
    whole = list(FrameReader().feed(stream))
    assert [frame.kind for frame in whole] == ["hello", "task", "task", "ping", "pad"]
    assert [frame.payload for frame in whole[1:3]] == [b"", b"\n" * 5]
    dice = random.Random(4)  # noqa: S311
    for _ in range(200):
        reader, at = FrameReader(), 0
        got: list[Frame] = []
        while at < len(stream):
            size = dice.choice([1, 2, 7, 50, 40_000])
            got += reader.feed(stream[at : at + size])
            at += size
        assert got == whole
    for size in (LINE_MAX, LINE_MAX + 1):
        with pytest.raises(ProtocolViolation, match="a line of more than"):
            list(FrameReader().feed(b"x" * size))


@pytest.mark.parametrize("concurrency", [1, 2])
@pytest.mark.parametrize("form", ["def", "async def"])
def test_a_ping_is_answered_while_a_handler_computes(runner: Start, form: str, concurrency: int) -> None:
    it = runner(f"""
        from outlive.runner import Runner

        runner = Runner(concurrency={concurrency})

        @runner.task
        {form} computes(task):
            task.emit("begun")
            while not task.cancelled:
                pass

        runner.run()
    """).ready()
    it.give("computes")
    it.until("chunk")
    for n in range(5):
        it.answers_ping(n)
    assert not it.kinds("result")
    it.cancel()
    it.outcome()


def test_a_ping_is_answered_while_it_loads(runner: Start) -> None:
    it = runner("""
        import time
        from outlive.runner import Runner

        runner = Runner()

        @runner.load
        def long():
            yield 1
            while True:
                pass

        runner.run()
    """)
    it.until("state", done=1)
    it.answers_ping(1)


CHILDREN = """
    import multiprocessing, os, signal, subprocess, sys, time
    from outlive.runner import ChannelClosed, Runner

    runner = Runner(concurrency=CONCURRENCY)

    def double(number):
        return number * 2

    def open_descriptors(_):
        return [os.path.exists(f"/proc/self/fd/{n}") and os.readlink(f"/proc/self/fd/{n}") for n in (3, 4)]

    def sleeps():
        time.sleep(600)

    @runner.task
    def pools(method):
        with multiprocessing.get_context(method).Pool(2) as pool:
            return [pool.map(double, range(4)), pool.map(open_descriptors, [0])[0]]

    @runner.task
    def mine():
        return open_descriptors(0)

    @runner.task
    def forks(task):
        child = os.fork()
        if child == 0:
            try:
                task.emit("from the child")
            except ChannelClosed as error:
                print(error, flush=True)
            return "from the child"
        yield os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @runner.task
    def forks_and_raises():
        child = os.fork()
        if child == 0:
            raise ValueError("in the child")
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @runner.task
    def forks_and_exits():
        child = os.fork()
        if child == 0:
            sys.exit(6)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    @runner.task
    def terminates():
        child = multiprocessing.get_context("fork").Process(target=sleeps)
        child.start()
        child.terminate()
        child.join()
        return child.exitcode

    @runner.task
    def runs_another():
        text = "import os; from outlive import Runner; print('OUTLIVE_RUNNER' in os.environ); Runner().run()"
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True)
        return [done.returncode, done.stdout, "NotStarted" in done.stderr]

    if __name__ == "__main__":
        runner.run()
"""


@pytest.mark.parametrize(("concurrency", "target"), [(1, None), (2, None), (1, "{}")])
def test_children_of_a_runner_are_silent_and_work(runner: Start, concurrency: int, target: str | None) -> None:
    it = runner(CHILDREN.replace("CONCURRENCY", str(concurrency)), target=target).ready()
    it.give("mine", id="mine")
    own = set(it.outcome("mine")["value"])
    for method in ("fork", "spawn", "forkserver"):
        it.give("pools", {"method": method}, id=method)
        doubled, descriptors = it.outcome(method)["value"]
        assert doubled == [0, 2, 4, 6]
        assert not own & set(descriptors), "its children do not hold the channel open"
    it.give("forks", id="forks")
    it.outcome("forks")
    assert [frame["json"] for frame in it.kinds("chunk", id="forks")] == [0]
    assert it.stdout == (
        "a child process of a runner cannot speak for it; give the value back to the process that has the task\n"
    )
    it.give("forks_and_raises", id="raises")
    assert it.outcome("raises")["value"] == 1
    assert "ValueError: in the child" in it.stderr
    it.give("forks_and_exits", id="exits")
    assert it.outcome("exits")["value"] == 6
    it.give("terminates", id="terminates")
    assert it.outcome("terminates")["value"] == -signal.SIGTERM
    it.give("runs_another", id="another")
    assert it.outcome("another")["value"] == [1, "False\n", True]
    it.answers_ping(1)
    assert it.shut_down() == 0
    assert not it.kinds("last_words")


def test_a_signal_handler_of_the_programs_breaks_no_frame(runner: Start) -> None:
    it = runner("""
        import signal
        from outlive.runner import Runner

        runner = Runner()

        class Late(Exception):
            pass

        def late(*_):
            raise Late

        signal.signal(signal.SIGALRM, late)

        @runner.task
        def limited(task):
            raised = 0
            while raised < 200:
                try:
                    signal.setitimer(signal.ITIMER_REAL, 0.001)
                    while True:
                        task.emit("x" * 1_000)
                except Late:
                    raised += 1
            return raised

        runner.run()
    """).ready()
    it.give("limited")
    assert it.outcome()["value"] == 200
    assert {len(frame["text"]) for frame in it.kinds("chunk")} == {1_000}
