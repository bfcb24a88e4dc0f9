"""What makes an end of the process tell its cause, wherever it comes from."""

from __future__ import annotations

import atexit
import faulthandler
import sys
import threading
from types import TracebackType

from ._channel import Channel

_STDERR = 2


def install(channel: Channel) -> None:
    """Tells uncaught exceptions as last words, native crashes on standard error, and the end at exit."""
    uncaught, uncaught_in_thread = sys.excepthook, threading.excepthook

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        channel.last_words(error)
        uncaught(kind, error, trace)

    def tell_thread(happened: threading.ExceptHookArgs) -> None:
        # It ends that thread only. If the runner stalls or ends after it, this may be why.
        if happened.exc_value is not None and not issubclass(happened.exc_type, SystemExit):
            channel.last_words(happened.exc_value, thread=happened.thread.name if happened.thread else "unknown")
        uncaught_in_thread(happened)

    sys.excepthook, threading.excepthook = tell, tell_thread
    atexit.register(channel.end)
    if not faulthandler.is_enabled():
        faulthandler.enable(_STDERR)
