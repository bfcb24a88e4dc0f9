"""The session for programs that wait."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing, suppress
from types import TracebackType
from typing import Any, TypeVar

from . import _calls, _where
from ._answer import answer, is_unknown, lost
from ._calls import Call
from ._follow import Attended, Cursor, collect, fill, large, unless_answered
from ._where import Ways, Where
from ._wire import EventReader, Request, ResponseReader
from .errors import DaemonGone, NotFound, Problem, RunFailed, tell
from .models import Cell, Event, Notebook, Question, Run, SavedPath, State

T = TypeVar("T")

ANSWER_SECONDS = 120.0
"""Longest wait for an answer: the daemon answers at once, but for a save of a large notebook to a slow disk."""
CONNECT_SECONDS = 1.0
"""Longest wait for a connection over TCP."""
SIGN_SECONDS = 1.0
"""How long one of several nodes is waited for before it is asked whether it lives, and may take to say so."""
AGAIN_SECONDS = 0.1
"""The wait before a daemon is looked for again."""
LIVE = Request("GET", "/v1/live", "ask for a sign of life", repeatable=True)
_READ_BYTES = 1 << 16


class _Daemon:
    """The way to one daemon, or to the nodes of a cluster."""

    def __init__(self, ways: Ways) -> None:
        self.ways = ways

    @property
    def where(self) -> Where:
        """Who is asked now."""
        return self.ways.where

    def call(self, call: Call[T]) -> T:
        """Carries a call out."""
        try:
            request = next(call)
            while True:
                request = call.send(self._exchange(request))
        except StopIteration as done:
            result: T = done.value
            return result

    def _exchange(self, request: Request) -> Any:
        deadline = time.monotonic() + self.ways.patience
        while True:
            where, connection = self.connect(deadline)
            try:
                connection.sendall(request.encode(where.host_header, where.token))
                reader, body = ResponseReader(), bytearray()
                while not reader.complete:
                    data = self._receive(where, connection)
                    body += reader.feed(data)
                    if not data and not reader.complete:
                        raise ConnectionResetError("the connection broke off")
                return answer(request, reader.status, bytes(body))
            except Problem as problem:
                if not (problem.passing or is_unknown(request, problem)) or time.monotonic() > deadline:
                    raise
                self.ways.turn_to(problem.elsewhere)
            except OSError as error:
                self.ways.turn()
                if not request.repeatable or time.monotonic() > deadline:
                    raise lost(request, error) from error
            finally:
                connection.close()
            time.sleep(AGAIN_SECONDS)

    def _receive(self, where: Where, connection: socket.socket) -> bytes:
        """What comes next. One of several nodes is waited for while it gives signs of life."""
        until = time.monotonic() + ANSWER_SECONDS
        connection.settimeout(SIGN_SECONDS if self.ways.several else ANSWER_SECONDS)
        while True:
            try:
                return connection.recv(_READ_BYTES)
            except TimeoutError:
                if not self.ways.several or time.monotonic() > until or not self._lives(where):
                    raise

    def _lives(self, where: Where) -> bool:
        try:
            connection = self._connected(where)
            with connection:
                connection.settimeout(SIGN_SECONDS)
                connection.sendall(LIVE.encode(where.host_header, where.token))
                return bool(connection.recv(1))
        except OSError:
            return False

    def connect(self, deadline: float) -> tuple[Where, socket.socket]:
        """A connection and its other end: the daemon, else another node, else a daemon that is started or waited for.

        Whoever shares these ways may turn to another place meanwhile, whose name and token are not for this one.
        """
        started = False
        while True:
            self.ways.look()
            failure = OSError("nobody is known")
            for _ in self.ways.places[:]:
                where = self.where
                try:
                    return where, self._connected(where)
                except OSError as error:
                    failure = error
                    self.ways.turn()
            local = next((place for place in self.ways.places if place.start), None)
            if local is not None and not started:
                _where.start(local)
                started = True
            elif time.monotonic() > deadline:
                raise DaemonGone(f"no daemon listens on {self.where.name}: {failure}") from failure
            else:
                time.sleep(AGAIN_SECONDS)

    def _connected(self, where: Where) -> socket.socket:
        if where.socket is None:
            connection = socket.create_connection((where.host, where.port), CONNECT_SECONDS)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.settimeout(None)
            return connection
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(where.socket)
        except OSError:
            connection.close()
            raise
        return connection

    def stream(self, request: Request) -> Generator[Event, None, None]:
        """The events of a stream to its end, through restarts of the daemon and from node to node."""
        cursor = Cursor(request)
        deadline = time.monotonic() + self.ways.patience
        while not cursor.over:
            for event in self._stream_once(cursor, deadline):
                deadline = time.monotonic() + self.ways.patience
                yield event
            if not cursor.over:
                if time.monotonic() > deadline:
                    raise DaemonGone(f"the stream of {self.where.name} broke off and does not come back")
                time.sleep(AGAIN_SECONDS)

    def _stream_once(self, cursor: Cursor, deadline: float) -> Iterator[Event]:
        request = cursor.next_request()
        where, connection = self.connect(deadline)
        try:
            connection.sendall(request.encode(where.host_header, where.token))
            reader, events, refusal = ResponseReader(), EventReader(), bytearray()
            while not reader.complete:
                if reader.status is None:
                    data = self._receive(where, connection)
                    connection.settimeout(self.ways.silence)
                else:
                    data = connection.recv(_READ_BYTES)
                body = reader.feed(data)
                if reader.status not in (None, 200):
                    refusal += body
                else:
                    for raw in events.feed(body):
                        yield cursor.take(raw)
                if not data:
                    break
            if refusal:
                answer(request, reader.status, bytes(refusal))
            leave(self.ways, cursor, None)
        except Problem as problem:
            if cursor.over or not problem.passing:
                raise
            cursor.sent_away, cursor.elsewhere = True, problem.elsewhere
            leave(self.ways, cursor, problem)
        except OSError as error:
            # The daemon has gone or hangs: it is looked for again.
            leave(self.ways, cursor, error)
        finally:
            connection.close()


def run_id(run: Run | str) -> str:
    """A run's id, however it is named."""
    return run if isinstance(run, str) else run.id


def leave(ways: Ways, cursor: Cursor, why: Exception | None) -> None:
    """Whom to ask next for a stream that broke off: the same one if it may answer, else another."""
    cursor.fruitless += 1
    if cursor.sent_away or isinstance(why, TimeoutError) or cursor.fruitless > 1:
        ways.turn_to(cursor.elsewhere)
    cursor.sent_away, cursor.elsewhere = False, None


class Session:
    """A notebook's session. Made by :meth:`open` or :meth:`new`; every method may raise an :class:`OutliveError`.

    It is known by its id, which never changes: after a rename, a save under another name or a restart of the daemon
    the same object goes on.
    """

    def __init__(self, daemon: _Daemon, state: State) -> None:
        self._daemon = daemon
        self._state = state

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        id: str | None = None,  # noqa: A002
        kernel: str | None = None,
        start: str | None = None,
        trust: bool = False,
        address: str | None = None,
        token: str | None = None,
    ) -> Session:
        """Opens a notebook by path, or a session by id (one of the two).

        Args:
            path: The file; relative to the working directory. `.ipynb` is appended where it is missing.
            id: The session.
            kernel: The kernelspec's name; without one, what the notebook asks for. A session that is there already
                keeps its own, and a :class:`Notice` says so.
            start: `first_run` (the default) or `at_once` (the notebook must be trusted).
            trust: You vouch for the notebook.
            address: A daemon's socket or `http://host:port`, or several nodes of a cluster with commas between them;
                this user's daemon without it, which is started if need be.
            token: For `http://host:port`.
        """
        daemon = _Daemon(_where.find(address, token))
        state, notice = daemon.call(_calls.open_(path, id, kernel, start, trust))
        tell(notice)
        return cls(daemon, state)

    @classmethod
    def new(
        cls,
        *,
        id: str | None = None,  # noqa: A002
        kernel: str | None = None,
        cwd: str | os.PathLike[str] | None = None,
        start: str | None = None,
        address: str | None = None,
        token: str | None = None,
    ) -> Session:
        """Makes an untitled notebook; :meth:`save` gives it a path. With an `id` of yours it is the same each time."""
        daemon = _Daemon(_where.find(address, token))
        return cls(daemon, daemon.call(_calls.new(id, kernel, cwd, start)))

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the session as it is: what runs goes on."""

    def __repr__(self) -> str:
        return f"<Session {self.id} {self._state.path or 'untitled'}>"

    @property
    def id(self) -> str:
        """The session's id, for life."""
        return self._state.id

    @property
    def path(self) -> str | None:
        """The file at the last look (:meth:`state` looks); `None` while it is untitled."""
        return self._state.path

    def _do(self, call: Call[T]) -> T:
        result = self._daemon.call(call)
        if isinstance(result, State):
            self._state = result
        return result

    def state(self) -> State:
        """The session as it is now."""
        return self._do(_calls.state(self.id))

    def notebook(self, *, outputs: bool = False) -> Notebook:
        """The notebook as it is now."""
        return self._do(_calls.notebook(self.id, outputs))

    def cells(self, *, outputs: bool = False) -> list[Cell]:
        """Its cells as they are now."""
        return self.notebook(outputs=outputs).cells

    def edit(self, *edits: dict[str, Any]) -> list[str]:
        """Edits as the API has them (`CellEdit`), all or nothing; gives the cell of each."""
        return self._do(_calls.edit(self.id, edits))

    def insert(
        self,
        source: str,
        *,
        kind: str = "code",
        after: str | None = None,
        index: int | None = None,
        cell: str | None = None,
    ) -> str:
        """Puts a new cell (at the end without `after` or `index`); gives its id."""
        return self.edit(_calls.insert(source, kind, after, index, cell))[0]

    def set_source(self, cell: str, source: str, *, expected: str | None = None) -> None:
        """Replaces a cell's source. What others type at the same time is merged; with `expected` the edit is refused
        if the source is not that any more."""
        self.edit(_calls.given(edit="set_source", cell=cell, source=source, expected=expected))

    def delete(self, cell: str) -> None:
        """Removes a cell."""
        self.edit({"edit": "delete", "cell": cell})

    def submit(
        self,
        *cells: str,
        code: str | None = None,
        required: str | None = None,
        expected: Mapping[str, str] | None = None,
    ) -> list[Run]:
        """Queues cells by id, or `code`, or without either all code cells; all or nothing. Does not wait.

        Args:
            cells: Their ids.
            code: Source that stands in no cell.
            required: A state vector: refused unless the notebook has all that was inserted until then.
            expected: The source of cells as you saw it, by id: :class:`CellChanged` if one is another by now.
        """
        return self._do(_calls.submit(self.id, code, cells or None, required, expected))

    def run(
        self,
        cell: str | None = None,
        *,
        code: str | None = None,
        expected: str | None = None,
        check: bool = True,
        on_question: Callable[[Question], str] | None = None,
    ) -> Run:
        """Runs a cell, or `code`, and waits for its end. Nothing is lost when this program ends meanwhile.

        Args:
            cell: The cell's id.
            code: Source that stands in no cell.
            expected: The cell's source as you saw it: if somebody has changed it, it is not run.
            check: Whether a run that does not succeed is an error.
            on_question: Is called with each question of the program (`input()`) and gives the answer;
                `on_question=input` asks at this terminal. Without it such a program fails, unless somebody else is
                there who can answer.

        Raises:
            RunFailed: it did not succeed (unless `check` is false).
            CellChanged: it is not what was `expected`.
        """
        run = self.wait(self._queued(_calls.run(self.id, cell, code, expected), on_question)[0])
        if check and not run.succeeded:
            raise RunFailed(run)
        return run

    def run_all(
        self,
        *,
        seen: Notebook | None = None,
        check: bool = True,
        on_question: Callable[[Question], str] | None = None,
    ) -> list[Run]:
        """Runs all code cells and waits for their end.

        Args:
            seen: The notebook as you saw it: its code cells are run, and none of them if one has another source by now.
            check: Whether a run that does not succeed is an error.
            on_question: As of :meth:`run`.

        Raises:
            RunFailed: the first that did not succeed (unless `check` is false).
            CellChanged: a cell is not as it was `seen`.
        """
        runs = [self.wait(run) for run in self._queued(_calls.run_all(self.id, seen), on_question)]
        for run in runs if check else []:
            if not run.succeeded:
                raise RunFailed(run)
        return runs

    def _queued(self, call: Call[list[Run]], ask: Callable[[Question], str] | None) -> list[Run]:
        """Queues work. Where somebody can be asked, until it has ended."""
        if ask is None:
            return self._do(call)
        request = _calls.events(self.id, "head", outputs=False, interactive=True)
        attended: Attended | None = None
        question: Question | None = None
        value = ""
        while True:
            answered, question = question, None
            # Somebody has to be there before a run begins, and before an answer lets it go on to the next question. Who
            # thinks about an answer need not be: the daemon may be restarted meanwhile.
            with closing(self._daemon.stream(request)) as events:
                for event in events:
                    attended = attended or Attended(self._do(call))
                    if answered is None:
                        question = attended.take(event)
                    else:
                        with unless_answered():
                            self.answer(answered.run, value)
                        attended.end(self.runs())
                        answered = None
                        question = attended.asked(self.state())
                    if question is not None or attended.over:
                        break
            if question is None:
                return attended.runs if attended else self._do(call)
            value = ask(question)

    def wait(self, run: Run) -> Run:
        """Follows a run to its end; its `chunks` hold its output."""
        run.chunks.clear()
        for event in self._daemon.stream(_calls.run_events(self.id, run.id)):
            collect(run, event)
        for chunk in large(run):
            # It may have been trimmed since.
            with suppress(NotFound):
                fill(chunk, self.blob(chunk["blob"]["sha256"]))
        return run

    def cancel(self, run: Run | str) -> Run:
        """Takes back a run that waits, or interrupts it where it runs."""
        return self._do(_calls.cancel(self.id, run_id(run)))

    def answer(self, run: Run | str, value: str) -> None:
        """Answers what a run asks (:attr:`State.question`). For programs that follow :meth:`events` with `interactive`;
        else `run(on_question=…)` is simpler."""
        self._do(_calls.answer(self.id, run_id(run), value))

    def runs(self) -> list[Run]:
        """All its runs, in the order in which they were queued."""
        return self._do(_calls.runs(self.id))

    def outputs(self, cell: str) -> list[dict[str, Any]]:
        """A cell's outputs in nbformat's form."""
        return self._do(_calls.outputs(self.id, cell))

    def blob(self, sha256: str) -> bytes:
        """The content of a large output, as its `blob` names it."""
        return self._do(_calls.blob(self.id, sha256))

    def reports(self) -> list[dict[str, Any]]:
        """Its failures, oldest first, with their causes."""
        return self._do(_calls.reports(self.id))

    def events(self, *, after: int | None = None, outputs: bool = True, interactive: bool = False) -> Iterator[Event]:
        """What happens from now on (or after a cursor; 0 for all), until the session ends. Comes back by itself when
        the daemon was restarted.

        With `interactive` programs that begin to run meanwhile may ask (:attr:`Event.question`), and wait for
        :meth:`answer`.
        """
        begin = "head" if after is None else str(after)
        yield from self._daemon.stream(_calls.events(self.id, begin, outputs, interactive))

    def save(self, path: str | os.PathLike[str] | None = None, *, overwrite: bool = False) -> SavedPath:
        """Saves; an untitled notebook needs a path, once. Gives the file."""
        saved = self._saved("save", path, overwrite)
        tell(_calls.stayed(saved))
        return saved

    def save_as(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> SavedPath:
        """Moves the session to another file, and gives it. A kernel that runs stays in its directory until
        :meth:`restart`; a :class:`Notice` says so, and `kernel_directory` of the answer."""
        saved = self._saved("save_as", path, overwrite)
        tell(_calls.stayed(saved))
        return saved

    def save_copy(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> SavedPath:
        """Writes a copy and gives its file; the session stays where it is."""
        return self._saved("copy", path, overwrite)

    def _saved(self, how: str, path: str | os.PathLike[str] | None, overwrite: bool) -> SavedPath:
        self._state, saved = self._do(_calls.save(self.id, path, how, overwrite))
        return saved

    def interrupt(self) -> State:
        """Interrupts what runs; what is queued behind it is cancelled."""
        return self._do(_calls.wish(self.id, "interrupt"))

    def restart(self) -> State:
        """Starts the kernel anew; what runs and waits is cancelled."""
        return self._do(_calls.wish(self.id, "restart", {}))

    def rest(self) -> State:
        """Stops the kernel and keeps the session; the next run starts it again."""
        return self._do(_calls.wish(self.id, "rest", {}))

    def trust(self, trusted: bool = True) -> State:
        """Vouches for the notebook, or takes that back."""
        return self._do(_calls.wish(self.id, "trust", {"trust": "trusted" if trusted else "untrusted"}))

    def close(self, *, discard: bool = False) -> State:
        """Saves, stops the kernel and ends the session. Edits that no file has are a reason to refuse, but for
        `discard`."""
        return self._do(_calls.wish(self.id, "close", {"discard": discard}))


__all__ = ["Session"]
