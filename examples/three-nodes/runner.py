"""A run that is worth watching: it walks down a valley step by step, and saves where it is.

Whoever goes on with it, on whatever node, goes on from the last step that was saved.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any

from outlive.runner import Runner, Task

RATE = 0.001
SAVED_EVERY = 5

runner = Runner()


def loss(x: float, y: float) -> float:
    """Rosenbrock's valley: easy to find, long to walk."""
    return (1 - x) ** 2 + 100 * (y - x * x) ** 2


@runner.task
def descend(task: Task, steps: int = 600, seconds_per_step: float = 0.02) -> Generator[str, None, dict[str, Any]]:
    """Walks from (-1.2, 1) towards (1, 1)."""
    state = task.checkpoint or {"step": 0, "x": -1.2, "y": 1.0}
    x, y = state["x"], state["y"]
    for step in range(state["step"] + 1, steps + 1):
        x, y = (
            x - RATE * (-2 * (1 - x) - 400 * x * (y - x * x)),
            y - RATE * 200 * (y - x * x),
        )
        yield f"step {step:4} of {steps}   loss {loss(x, y):.6f}   attempt {task.attempt}\n"
        if step % SAVED_EVERY == 0:
            # Behind the yield: what is saved covers the output of this step.
            task.save({"step": step, "x": x, "y": y})
        time.sleep(seconds_per_step)
    return {"x": round(x, 4), "y": round(y, 4), "loss": round(loss(x, y), 6)}


if __name__ == "__main__":
    runner.run()
