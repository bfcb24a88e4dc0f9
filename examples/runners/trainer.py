"""A training loop that is resumed where it was, also by another process: progress, and checkpoints.

It fits a line to points by gradient descent. Each epoch yields its loss; a checkpoint after it covers that output.

    python3 trainer.py here     # without Outlive
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Generator
from typing import Any

from outlive.runner import Runner, Task

RATE = 0.01

runner = Runner()


@runner.task
def fit(
    task: Task, epochs: int = 50, points: int = 200, seed: int = 1, seconds_per_epoch: float = 0.0
) -> Generator[dict[str, Any], None, dict[str, float]]:
    """Finds slope and offset of noisy points. The same input gives the same line, however often it is interrupted."""
    dice = random.Random(seed)
    data = [(x, 3.0 * x - 1.0 + dice.gauss(0, 0.1)) for x in (dice.uniform(-1, 1) for _ in range(points))]
    state = task.checkpoint or {"epoch": 0, "slope": 0.0, "offset": 0.0}
    slope, offset = state["slope"], state["offset"]
    for epoch in range(state["epoch"], epochs):
        loss = 0.0
        for x, y in data:
            error = slope * x + offset - y
            slope, offset = slope - RATE * error * x, offset - RATE * error
            loss += error * error / points
        time.sleep(seconds_per_epoch)
        yield {"epoch": epoch, "loss": round(loss, 6)}
        # Behind the yield: what was saved covers the output of this epoch.
        task.save({"epoch": epoch + 1, "slope": slope, "offset": offset})
        task.progress(epoch + 1, epochs, f"loss {loss:.4f}")
    return {"slope": slope, "offset": offset}


if __name__ == "__main__":
    if sys.argv[1:] == ["here"]:
        outcome = runner.call("fit", epochs=20)
        print(*outcome.chunks, outcome.value, sep="\n")
    else:
        runner.run()
