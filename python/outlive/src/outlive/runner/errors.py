"""What can go wrong between a runner and its supervisor, by type."""

from __future__ import annotations

from ..errors import OutliveError


class FrameTooLarge(OutliveError):
    """What was to be sent is over the limit of a frame. Nothing of it was sent, and the channel lives."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.size = size
        """In bytes."""
        self.limit = limit
        """In bytes."""
        super().__init__(
            f"{what} of {size:,} bytes is over the limit of {limit:,} bytes; "
            "send it in pieces, or write it to a file and send its path"
        )


class NotStarted(OutliveError):
    """This process was not started as a runner: it has no channel to a supervisor."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"this process was not started as a runner ({why}); start it with `outlive up runners.toml`, "
            'or try a handler in this process with runner.call("task", ...)'
        )


class ChannelClosed(OutliveError):
    """Nothing can be sent any more: the supervisor is gone, the runner has said its end, or this is a child process."""


class ProtocolViolation(OutliveError):
    """The supervisor sent something that is no frame. What follows it cannot be trusted, and the runner ends."""


class TaskCancelled(BaseException):
    """The task is to stop.

    Raised in a sync handler, once, where it yields, emits, reports progress, saves or checks. Like
    :class:`asyncio.CancelledError`, which async handlers get, it is no :class:`Exception`, so that a handler that
    catches those still stops. A handler that never looks goes on until the supervisor stops the runner.
    """


class Stopped(BaseException):
    """The runner is to end, and has not begun to take tasks. Raised while it loads."""
