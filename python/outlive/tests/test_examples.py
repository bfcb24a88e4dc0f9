"""The example runners, as they stand in the repository."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from supervisor import Supervisor

EXAMPLES = Path(__file__).parents[3] / "examples/runners"


@pytest.fixture
def example(tmp_path: Path) -> Iterator[Callable[..., Supervisor]]:
    """Starts an example."""
    started: list[Supervisor] = []

    def start(*arguments: str, program: str | None = None) -> Supervisor:
        started.append(Supervisor(tmp_path, arguments, program=program))
        return started[-1]

    yield start
    for supervisor in started:
        supervisor.close()


def ask(it: Supervisor, id: str, content: Any = "A class definition", **more: Any) -> tuple[str, dict[str, Any]]:  # noqa: A002
    """Asks the chat model, as OpenAI's clients do."""
    it.give("chat", {"model": "llm", "messages": [{"role": "user", "content": content}], **more}, id=id)
    value: dict[str, Any] = it.outcome(id)["value"]
    return it.text(id), value


def test_the_chat_model_speaks(example: Callable[..., Supervisor]) -> None:
    it = example("-m", "outlive.runner", str(EXAMPLES / "chat.py")).ready()
    assert it.said[0]["capabilities"] == ["chat"]
    loading = [frame for frame in it.kinds("state") if "total" in frame]
    assert loading[-1]["done"] == loading[-1]["total"] == len(loading)
    text, value = ask(it, "long", seed=3, max_tokens=40)
    assert len(text.split()) > 5, "words, with spaces between them"
    assert len(it.kinds("chunk", id="long")) > 5, "as they are made"
    assert value["usage"]["prompt_tokens"] == 3
    assert value["usage"]["completion_tokens"] <= 40
    assert ask(it, "again", seed=3, max_tokens=40)[0] == text, "one seed, one answer"
    assert len({ask(it, f"other{n}", seed=n, max_tokens=40)[0] for n in range(8)}) > 1
    cold = {ask(it, f"cold{n}", temperature=0, seed=n, max_tokens=40)[0] for n in range(4)}
    assert len(cold) == 1, "without temperature there is one answer"
    parts, _ = ask(
        it,
        "parts",
        [{"type": "text", "text": "A class "}, {"type": "text", "text": "definition"}],
        temperature=0,
        max_tokens=40,
    )
    assert {parts} == cold
    _, value = ask(it, "one", temperature=0, max_tokens=1)
    assert (value["finish_reason"], value["usage"]["completion_tokens"]) == ("length", 1)
    stop = text.split()[3]
    stopped, value = ask(it, "stop", seed=3, max_tokens=40, stop=[stop, "never said"])
    assert value["finish_reason"] == "stop"
    assert stop not in stopped
    assert text.startswith(stopped)
    assert it.shut_down() == 0


def test_the_trainer_resumes_where_it_was(example: Callable[..., Supervisor], tmp_path: Path) -> None:
    it = example("-m", "outlive.runner", str(EXAMPLES / "trainer.py")).ready()
    it.give("fit", {"epochs": 6}, id="whole")
    whole = it.outcome("whole")["value"]
    assert (round(whole["slope"]), round(whole["offset"])) == (3, -1)
    assert [frame["json"]["epoch"] for frame in it.kinds("chunk", id="whole")] == list(range(6))
    half = tmp_path / "state"
    half.write_text(json.dumps(it.kinds("checkpoint", id="whole")[2]["state"]))
    it.give("fit", {"epochs": 6}, id="half", attempt=2, checkpoint={"seq": 3, "file": str(half)})
    assert it.outcome("half")["value"] == whole
    assert [frame["json"]["epoch"] for frame in it.kinds("chunk", id="half")] == [3, 4, 5]
    assert it.kinds("progress", id="half")[-1]["done"] == 6


def test_the_shell_counts_words(example: Callable[..., Supervisor]) -> None:
    it = example(program=str(EXAMPLES / "wordcount.sh")).ready()
    it.answers_ping(1)
    it.give("count", {"bytes": 5, "text": 'one "two" *\nthree \\n é\n\n'}, id="a")
    assert it.outcome("a")["value"] == {"lines": 3, "words": 6}
    assert it.text("a") == "line 1: 3 words\nline 2: 3 words\nline 3: 0 words\n"
    it._given.add(("b", 1))
    it.send("task", '{"text":"é b c"}'.encode(), id="b", attempt=1, task="count", key="k")
    assert it.outcome("b")["value"] == {"lines": 1, "words": 3}
    for name, task, given in (("c", "count", {}), ("d", "other", {"text": ""})):
        it.give(task, given, id=name)
        assert it.outcome(name)["type"] == "error"
    assert it.shut_down() == 0
