"""Runners: long-lived programs that serve tasks under Outlive's supervision.

    from outlive.runner import Runner

    runner = Runner()

    @runner.task
    def greet(name):
        yield f"Hello {name}"

    if __name__ == "__main__":
        runner.run()

Outlive starts it (``outlive up runners.toml``), gives it tasks, streams their output to whoever asks, and says why it
died if it does. A program whose imports may fail is better started as ``python -m outlive.runner program.py``: then
also an exception of an import is known by its type and traceback. The protocol is ``docs/design/runner-protocol.md``.
"""

from ._runner import Outcome, Runner
from ._task import Chunk, Task
from .errors import ChannelClosed, FrameTooLarge, NotStarted, ProtocolViolation, TaskCancelled

__all__ = [
    "ChannelClosed",
    "Chunk",
    "FrameTooLarge",
    "NotStarted",
    "Outcome",
    "ProtocolViolation",
    "Runner",
    "Task",
    "TaskCancelled",
]
