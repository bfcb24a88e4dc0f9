"""A language model of one page: it tells a story word by word, and saves how far it is.

Which word comes next depends on the seed, the place and the word before, and on nothing else. So whoever goes on with a
story tells the same one, on whatever machine, and the demonstration can compare what people saw with what it should be.
"""

from __future__ import annotations

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Generator, Iterator

from outlive.runner import Runner, Task

PAGE = """
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice
she had peeped into the book her sister was reading, but it had no pictures or conversations in it, and what is the use
of a book, thought Alice, without pictures or conversations? So she was considering in her own mind, as well as she
could, for the hot day made her feel very sleepy and stupid, whether the pleasure of making a daisy-chain would be worth
the trouble of getting up and picking the daisies, when suddenly a White Rabbit with pink eyes ran close by her. There
was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit say to
itself, Oh dear! Oh dear! I shall be late! But when the Rabbit actually took a watch out of its waistcoat-pocket, and
looked at it, and then hurried on, Alice started to her feet, for it flashed across her mind that she had never before
seen a rabbit with either a waistcoat-pocket, or a watch to take out of it, and burning with curiosity, she ran across
the field after it, and was just in time to see it pop down a large rabbit-hole under the hedge. In another moment down
went Alice after it, never once considering how in the world she was to get out again.
"""
"""All that it knows."""
FIRST = "Alice"
SAVED_EVERY = 5

runner = Runner()
followers: dict[str, list[str]] = defaultdict(list)
for before, after in itertools.pairwise([*PAGE.split(), FIRST]):
    followers[before].append(after)


def story(seed: int, place: int = 0, word: str = FIRST) -> Iterator[str]:
    """The words of a story from this place on; `word` stands there."""
    while True:
        yield word
        place += 1
        word = random.Random(f"{seed} {place}").choice(followers[word])


@runner.task
def tell(task: Task, seed: int, words: int, seconds_per_word: float) -> Generator[str, None, int]:
    """Tells so many words. A later attempt goes on where an earlier one has saved."""
    place, begin = task.checkpoint or (0, FIRST)
    for word in story(seed, place, begin):
        if place == words:
            break
        if place % SAVED_EVERY == 0:
            # All output before it is covered by it.
            task.save((place, word))
        yield word + " "
        place += 1
        time.sleep(seconds_per_word)
    return place


if __name__ == "__main__":
    runner.run()
