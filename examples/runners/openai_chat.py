"""What every task `chat` does with OpenAI's request, whatever model it has."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any


def text_of(content: str | list[dict[str, Any]] | None) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content)
    return content or ""


def until_stop(pieces: Iterable[str], stop: str | list[str] | None) -> Generator[str, None, bool]:
    """The text up to a stop sequence. Returns whether there was one.

    What may be the beginning of a stop sequence is held back until it is not.
    """
    stops = [stop] if isinstance(stop, str) else stop or []
    held = ""
    for piece in pieces:
        held += piece
        if found := [at for at in map(held.find, stops) if at >= 0]:
            yield held[: min(found)]
            return True
        keep = max((n for s in stops for n in range(1, len(s)) if held.endswith(s[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
    return False


def report(stopped: bool, prompt_tokens: int, completion_tokens: int, most: int) -> dict[str, Any]:
    """What the task returns: why the text ended, and how many tokens there were."""
    reason = "length" if not stopped and completion_tokens >= most else "stop"
    return {
        "finish_reason": reason,
        "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": completion_tokens},
    }
