"""What a handler takes and gives, by a real runner over real pipes."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from supervisor import BYTES_MAX, LINE_MAX, Supervisor

from outlive.runner import Chunk, NotStarted, Runner, Task

Start = Callable[..., Supervisor]

KINDS = """
    import asyncio
    from outlive.runner import Chunk, Runner

    runner = Runner(concurrency=CONCURRENCY)

    @runner.task
    def plain(word):
        return word.upper()

    @runner.task
    async def awaiting(word):
        await asyncio.sleep(0)
        return word.upper()

    @runner.task
    def pieces(word):
        yield word
        yield {"word": word}
        yield None
        yield word.encode()
        yield Chunk(b"\\x89PNG\\n", "image/png")
        return len(word)

    @runner.task
    async def pieces_awaiting(word):
        yield word
        await asyncio.sleep(0)
        yield [word]

    runner.run()
"""


@pytest.mark.parametrize("concurrency", [1, 3])
def test_each_form_of_a_handler_gives_its_chunks_and_its_result(runner: Start, concurrency: int) -> None:
    it = runner(KINDS.replace("CONCURRENCY", str(concurrency))).ready()
    assert it.said[0]["tasks"] == ["awaiting", "pieces", "pieces_awaiting", "plain"]
    assert it.said[0]["concurrency"] == concurrency
    for number, (task, value) in enumerate(
        [("plain", "EEL"), ("awaiting", "EEL"), ("pieces", 3), ("pieces_awaiting", None)]
    ):
        it.give(task, {"word": "eel"}, id=f"t{number}")
        assert it.outcome(f"t{number}")["value"] == value
    about = {"type", "id", "attempt"}
    said = [{k: v for k, v in frame.items() if k not in about} for frame in it.kinds("chunk", id="t2")]
    assert said == [
        {"text": "eel"},
        {"json": {"word": "eel"}},
        {"json": None},
        {"bytes": 3, "payload": b"eel"},
        {"mime": "image/png", "bytes": 5, "payload": b"\x89PNG\n"},
    ]
    assert [frame.get("text", frame.get("json")) for frame in it.kinds("chunk", id="t3")] == ["eel", ["eel"]]
    assert it.shut_down() == 0
    assert it.said[-1] == {"type": "end"}
    assert it.said[-2]["state"] == "shutting_down"


def test_an_input_is_keywords_if_it_is_an_object_and_else_one_argument(runner: Start) -> None:
    it = runner("""
        from __future__ import annotations
        from outlive.runner import Runner, Task

        runner = Runner()

        @runner.task
        def fields(a, b=2, **rest):
            return [a, b, rest]

        @runner.task
        def annotated(me: Task, value):
            return [me.id, me.attempt, me.key, me.name, me.step_key("mail"), value]

        @runner.task
        def named(value=None, *, task):
            return [task.input, value]

        class Callable:
            def __call__(self, value):
                return value

        runner.task(name="an object")(Callable())
        runner.run()
    """).ready()
    for number, (task, given, value) in enumerate(
        [
            ("fields", {"a": 1, "c": 3}, [1, 2, {"c": 3}]),
            ("annotated", {"value": 5}, ["t1", 1, "key-t1", "annotated", "key-t1:mail", 5]),
            ("annotated", [5], ["t2", 1, "key-t2", "annotated", "key-t2:mail", [5]]),
            ("named", None, [None, None]),
            ("named", "word", ["word", "word"]),
            ("an object", 7, 7),
        ]
    ):
        it.give(task, given, id=f"t{number}")
        assert it.outcome(f"t{number}").get("value") == value
    # A long input comes behind the line.
    it._given.add(("long", 1))
    it.send("task", json.dumps("é" * LINE_MAX).encode(), id="long", attempt=1, task="an object", key="k")
    outcome = it.outcome("long")
    assert json.loads(outcome["payload"]) == "é" * LINE_MAX, "and so does a long value"
    for name, task, given, says in [
        ("missing", "fields", {}, "missing 1 required positional argument: 'a'"),
        ("field", "named", {"task": 1}, "the input has a field 'task'"),
        ("unknown", "fieldz", {}, "this runner has no task 'fieldz'; it has an object, annotated, fields, named"),
    ]:
        it.give(task, given, id=name)
        outcome = it.outcome(name)
        assert outcome["type"] == "error"
        assert says in outcome["exception"]["message"]
    assert it.shut_down() == 0


def test_progress_and_checkpoints_are_told_and_a_later_attempt_goes_on(runner: Start, tmp_path: Path) -> None:
    it = runner("""
        from outlive.runner import Runner

        runner = Runner()

        @runner.task
        def steps(task, until):
            state = task.checkpoint or {"done": 0}
            for step in range(state["done"], until):
                yield step
                task.progress(step + 1, until, "so far")
                task.save({"done": step + 1})
            return state["done"]

        @runner.task
        def raw(task):
            task.save(b'{"like": "JSON"}' if task.checkpoint is None else task.checkpoint + b"!")

        @runner.task
        def long(task):
            task.save("x" * 100_000)

        runner.run()
    """).ready()
    it.give("steps", {"until": 2})
    assert it.outcome()["value"] == 0
    assert [frame["type"] for frame in it.kinds("chunk", "progress", "checkpoint", id="a")] == [
        "chunk",
        "progress",
        "checkpoint",
    ] * 2
    assert {k: it.kinds("progress")[-1].get(k) for k in ("done", "total", "message")} == {
        "done": 2,
        "total": 2,
        "message": "so far",
    }
    saved = tmp_path / "saved"
    saved.write_text(json.dumps(it.kinds("checkpoint")[-1]["state"]))
    it.give("steps", {"until": 4}, attempt=2, checkpoint={"seq": 3, "file": str(saved)})
    assert it.outcome()["value"] == 2
    assert [frame["json"] for frame in it.kinds("chunk") if frame["attempt"] == 2] == [2, 3]
    # Bytes come back as bytes, whatever they look like.
    it.give("raw", id="raw")
    it.outcome("raw")
    saved.write_bytes(it.kinds("checkpoint", id="raw")[-1]["payload"])
    it.give("raw", id="raw", attempt=2, checkpoint={"seq": 0, "file": str(saved)})
    it.outcome("raw")
    assert it.kinds("checkpoint", id="raw")[-1]["payload"].endswith(b'{"like": "JSON"}!')
    it.give("long", id="long")
    it.outcome("long")
    assert json.loads(it.kinds("checkpoint", id="long")[-1]["payload"]) == "x" * 100_000
    # A state that is gone is the task's error.
    it.give("raw", id="gone", checkpoint={"seq": 0, "file": str(tmp_path / "nowhere")})
    assert it.outcome("gone")["exception"]["type"] == "FileNotFoundError"


def test_what_is_too_large_is_an_error_where_it_is_sent_and_the_channel_lives(runner: Start) -> None:  # B1
    it = runner(f"""
        from outlive.runner import FrameTooLarge, Runner

        runner = Runner()

        @runner.task
        def emits(task):
            try:
                task.emit(bytes({BYTES_MAX + 1}))
            except FrameTooLarge as error:
                return [error.size, error.limit, str(error)]

        @runner.task
        def yields():
            try:
                yield bytes({BYTES_MAX + 1})
            except FrameTooLarge:
                yield "smaller"

        @runner.task
        def returns():
            return "x" * {BYTES_MAX}

        @runner.task
        def largest():
            yield bytes({BYTES_MAX})
            yield memoryview(b"a.b.c." * 10_000)[::2]
            yield b""
            yield "\\x01é😀" * 50_000
            yield ["z" * 100_000]

        runner.run()
    """).ready()
    it.give("emits", id="emits")
    size, limit, text = it.outcome("emits")["value"]
    assert (size, limit) == (BYTES_MAX + 1, BYTES_MAX)
    assert text == (
        "the content of a chunk of 16,777,217 bytes is over the limit of 16,777,216 bytes; "
        "send it in pieces, or write it to a file and send its path"
    )
    it.give("yields", id="yields")
    assert it.outcome("yields")["type"] == "result"
    assert it.text("yields") == "smaller"
    it.give("returns", id="returns")
    assert it.outcome("returns")["exception"]["type"] == "outlive.runner.errors.FrameTooLarge"
    it.give("largest", id="largest")
    it.outcome("largest")
    chunks = it.kinds("chunk", id="largest")
    assert chunks[0]["payload"] == bytes(BYTES_MAX)
    assert chunks[1]["payload"] == b"abc" * 10_000
    assert chunks[2]["payload"] == b""
    assert it.text("largest") == "\x01é😀" * 50_000, "a long text is whole"
    assert chunks[-1]["mime"] == "application/json"
    assert json.loads(chunks[-1]["payload"]) == ["z" * 100_000]
    it.answers_ping(1)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("float('nan')", "ValueError"),
        ("'\\ud800'", "UnicodeEncodeError"),
        ("object()", "TypeError"),
        ("10 ** 400", "ValueError"),
        ("nested(150)", "ValueError"),
        ("nested(100_000)", "RecursionError"),
        ("{1: {2, 3}}", "TypeError"),
    ],
)
def test_what_json_cannot_say_is_the_tasks_error(runner: Start, value: str, error: str) -> None:
    it = runner(f"""
        from outlive.runner import Runner

        runner = Runner()

        def nested(depth):
            value = 1
            for _ in range(depth):
                value = [value]
            return value

        @runner.task
        def yields():
            yield {value}

        @runner.task
        def returns():
            return {value}

        @runner.task
        def fine():
            return ["9" * 400, "[" * 400, nested(50), 10 ** 100]

        runner.run()
    """).ready()
    for task in ("yields", "returns"):
        it.give(task, id=task)
        assert it.outcome(task)["exception"]["type"] == error
    it.give("fine", id="fine")
    assert it.outcome("fine")["type"] == "result"


def test_several_tasks_run_at_a_time(runner: Start) -> None:
    it = runner("""
        import asyncio, threading
        from outlive.runner import Runner

        runner = Runner(concurrency=2)
        met, met_async = threading.Barrier(2), []

        @runner.task
        def meets():
            return met.wait(60) >= 0

        @runner.task
        async def meets_async():
            met_async.append(asyncio.Event())
            if len(met_async) == 2:
                for event in met_async:
                    event.set()
            await asyncio.wait_for(met_async[-1].wait() if len(met_async) == 2 else met_async[0].wait(), 60)
            return True

        runner.run()
    """).ready()
    for task in ("meets", "meets_async"):
        it.give(task, id=f"{task}1")
        it.give(task, id=f"{task}2")
        both = {it.until("result")["id"], it.until("result")["id"]}
        assert both == {f"{task}1", f"{task}2"}
    assert it.shut_down() == 0


def test_a_generator_that_awaits_nothing_lets_others_run(runner: Start) -> None:
    it = runner("""
        from outlive.runner import Runner

        runner = Runner(concurrency=2)
        over = False

        @runner.task
        async def chatters():
            while not over:
                yield "."

        @runner.task
        async def ends():
            global over
            over = True

        runner.run()
    """).ready()
    it.give("chatters", id="chatters")
    it.until("chunk")
    it.give("ends", id="ends")
    assert {it.until("result")["id"], it.until("result")["id"]} == {"chatters", "ends"}


def test_nothing_is_sent_for_a_task_after_its_end(runner: Start) -> None:
    it = runner("""
        from outlive.runner import Runner

        runner, kept = Runner(), []

        @runner.task
        def keeps(task):
            kept.append(task)

        @runner.task
        def late():
            try:
                kept[0].emit("late")
            except RuntimeError as error:
                return str(error)

        runner.run()
    """).ready()
    it.give("keeps", id="a")
    it.outcome("a")
    it.give("late", id="b")
    assert it.outcome("b")["value"] == "the task keeps has ended; nothing can be sent for it any more"


def test_standard_output_stays_the_programs_own(runner: Start) -> None:
    it = runner("""
        import sys
        from outlive.runner import Runner

        runner = Runner()

        @runner.task
        def prints():
            print("printed")
            print("complained", file=sys.stderr)

        runner.run()
        print("and cleaned up")
    """).ready()
    it.give("prints")
    it.outcome()
    assert it.shut_down() == 0
    assert it.stdout == "printed\nand cleaned up\n"
    assert it.stderr == "complained\n"


def test_a_handler_is_tried_without_outlive() -> None:
    loaded = []
    mine = Runner()

    @mine.load
    def weights() -> Iterator[tuple[int, int]]:
        loaded.append(1)
        yield 1, 1

    @mine.task
    def speak(task: Task, words: list[str]) -> Generator[object, None, int]:
        for done, word in enumerate(words, 1):
            task.progress(done, len(words))
            yield word
        yield Chunk(b"end")
        task.save({"done": True})
        return len(words)

    outcome = mine.call("speak", words=["a", "b"])
    assert (outcome.value, outcome.text, outcome.reports) == (2, "ab", [(1, 2, None), (2, 2, None)])
    assert outcome.chunks[-1] == Chunk(b"end")
    assert outcome.saved == {"done": True}
    assert mine.call("speak", ["c"]).text == "c"
    assert loaded == [1], "it loads once"

    @mine.task
    async def later(words: str) -> str:
        return words

    assert mine.call("later", "x").value == "x"
    with pytest.raises(LookupError, match="there is no task 'spek'; there is later, speak"):
        mine.call("spek")
    with pytest.raises(ValueError, match="declared twice"):
        mine.task(name="speak")(later)
    with pytest.raises(NotStarted, match=r"OUTLIVE_RUNNER is not set\); start it with `outlive up runners.toml`"):
        mine.run()


@pytest.mark.parametrize(
    ("spoken", "why"),
    [
        (None, "OUTLIVE_RUNNER is not set"),
        ("0", "its supervisor speaks version '0' of the protocol, and this package 1"),
        ("new", "its supervisor speaks version 'new'"),
    ],
)
def test_a_runner_that_was_not_started_as_one_says_so(runner: Start, spoken: str | None, why: str) -> None:
    it = runner("from outlive import Runner\nRunner().run()\n", spoken=spoken, hello=False)
    assert it.wait() == 1
    assert why in it.stderr
    assert it.hear() is None, "and nothing on descriptors that may be somebody else's"


def test_a_wrapper_that_closed_the_descriptors_is_named(runner: Start) -> None:
    it = runner("""
        import os, subprocess, sys
        text = "from outlive import Runner; Runner().run()"
        sys.exit(subprocess.run([sys.executable, "-c", text], close_fds=True).returncode)
    """)
    assert it.wait() == 1
    assert "descriptor 3 is not open; did a wrapper close it?" in it.stderr
