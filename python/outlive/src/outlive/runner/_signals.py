"""SIGTERM and SIGINT of a runner.

A signal may come to any thread, and then does not wake the main one, where Python runs handlers. So SIGTERM is told
through a pipe at once, to the thread that listens; the handler in the main thread interrupts what runs there.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType

_READ_BYTES = 1_024
_AGAIN_SECONDS = 0.05


class Signals:
    """The handlers of one process. Its forked children are stopped as any process is."""

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        """Called in the main thread, in the middle of anything: it must take no lock. It may raise."""
        self._main_is_being_told = False
        self.source, self._sink = os.pipe()
        """What can be read when SIGTERM has come."""
        os.set_blocking(self._sink, False)

    def catch(self) -> None:
        """Installs them, unless the program has some of its own: it has its reasons.

        Raises:
            RuntimeError: this is not the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a runner runs in the main thread; call its run() there")
        if signal.getsignal(signal.SIGINT) == signal.default_int_handler:
            signal.signal(signal.SIGINT, _ignore)
        if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_term)
            others = signal.set_wakeup_fd(self._sink, warn_on_full_buffer=False)
            if others != -1:
                signal.set_wakeup_fd(others)
        # Blocked meanwhile, so that one which comes to the child before it has forgotten our handler is not lost.
        block, term = signal.pthread_sigmask, (signal.SIGTERM,)
        os.register_at_fork(
            before=partial(block, signal.SIG_BLOCK, term),
            after_in_parent=partial(block, signal.SIG_UNBLOCK, term),
            after_in_child=self._forget,
        )

    def is_term(self) -> bool:
        """Reads what has come: whether a SIGTERM for us is in it."""
        return signal.SIGTERM in os.read(self.source, _READ_BYTES) and self._catches_term()

    def tell_main(self, is_told: Callable[[], bool]) -> None:
        """Interrupts the main thread, whatever blocks it there.

        A signal that comes just before a blocking call is noticed after that, so it is sent until it is heard.
        """
        if self._main_is_being_told or not self._catches_term():
            return
        self._main_is_being_told = True

        def tell() -> None:
            main = threading.main_thread().ident
            while main is not None and not is_told():
                signal.pthread_kill(main, signal.SIGTERM)
                time.sleep(_AGAIN_SECONDS)

        threading.Thread(target=tell, name="outlive-tell", daemon=True).start()

    def _catches_term(self) -> bool:
        return signal.getsignal(signal.SIGTERM) == self._on_term

    def _on_term(self, _number: int, _frame: FrameType | None) -> None:
        # Again, for a program that has taken the place of our pipe.
        with suppress(BlockingIOError):
            os.write(self._sink, bytes([signal.SIGTERM]))
        self._interrupt()

    def _forget(self) -> None:
        if signal.getsignal(signal.SIGINT) == _ignore:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._catches_term():
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            # The pipe is the parent's too, which must not take our signals for its own.
            others = signal.set_wakeup_fd(-1)
            if others not in (-1, self._sink):
                signal.set_wakeup_fd(others)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """SIGINT is for the supervisor, which has the same terminal and stops its runners in order."""
