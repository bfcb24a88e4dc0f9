"""A runner with the capability `chat`: a small language model, trained while it loads.

The model counts which word follows which few words in the text that ships with Python, its language reference. It
knows nothing else, and says it fluently. The task `chat` takes the body of OpenAI's /v1/chat/completions, yields text.

    python3 chat.py "The with statement"     # without Outlive
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Generator, Iterator
from pydoc_data.topics import topics
from typing import Any

from openai_chat import report, text_of, until_stop
from outlive.runner import Runner

ORDER = 4
"""A word is predicted from up to three words before it."""
END = ""
"""Stands behind each paragraph."""
WORDS = re.compile(r"\s?\w+|\s?[^\w\s]|\s")

Context = tuple[str, ...]

runner = Runner(capabilities=["chat"], concurrency=4)
followers: dict[Context, Counter[str]] = defaultdict(Counter)


@runner.load
def train() -> Iterator[tuple[int, int, str]]:
    """Counts what follows what, one topic of the reference after the other."""
    for done, (name, text) in enumerate(sorted(topics.items()), 1):
        for paragraph in text.split("\n\n"):
            if paragraph.startswith((" ", "*")):  # code and headings
                continue
            learn(words_of(" ".join(paragraph.split())))
        yield done, len(topics), f"learned `{name}`"


def words_of(text: str) -> list[str]:
    """The text in words, each with the space before it."""
    return WORDS.findall(text)


def learn(words: list[str]) -> None:
    """Counts the words of a paragraph after each of their contexts, the empty one included."""
    words = [*words, END]
    for at, word in enumerate(words):
        for length in range(min(at, ORDER - 1) + 1):
            followers[tuple(words[at - length : at])][word] += 1


@runner.warm_up
def first_words() -> None:
    """One answer for nobody."""
    list(answer(words_of("The"), 5, 1.0, random.Random(0)))


def answer(words: list[str], most: int, temperature: float, dice: random.Random) -> Iterator[str]:
    """Goes on with the words, each time from the longest context that was ever seen."""
    words = list(words)
    for _ in range(most):
        known = next(counts for length in range(ORDER - 1, -1, -1) if (counts := seen(words, length)))
        choices = list(known)
        if temperature < 0.01:
            word = max(choices, key=lambda choice: (known[choice], choice))
        else:
            word = dice.choices(choices, [known[choice] ** (1 / temperature) for choice in choices])[0]
        if word == END:
            return
        words.append(word)
        yield word


def seen(words: list[str], length: int) -> Counter[str] | None:
    """What followed the last words."""
    return followers.get(tuple(words[len(words) - length :])) if length <= len(words) else None


@runner.task
def chat(
    messages: list[dict[str, Any]],
    max_tokens: int | None = None,
    max_completion_tokens: int | None = None,
    temperature: float | None = None,
    stop: str | list[str] | None = None,
    seed: int | None = None,
    **_others: object,
) -> Generator[str, None, dict[str, Any]]:
    """Goes on with the last message. Yields text; returns why it ended, and how many tokens there were."""
    prompt = words_of(text_of(messages[-1]["content"]).rstrip()) if messages else []
    most = max_completion_tokens or max_tokens or 200
    said: list[str] = []

    def pieces() -> Iterator[str]:
        for word in answer(prompt, most, 0.8 if temperature is None else temperature, random.Random(seed)):
            said.append(word)
            yield word

    stopped = yield from until_stop(pieces(), stop)
    return report(stopped, len(prompt), len(said), most)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        said = runner.call("chat", messages=[{"role": "user", "content": sys.argv[1]}], max_tokens=120)
        print(sys.argv[1] + said.text, said.value)
    else:
        runner.run()
