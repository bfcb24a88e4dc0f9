"""A handler, and how it is called with the input of a task."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from typing import Any

from ._task import Task


class Handler:
    """A function of the program's that serves a task."""

    def __init__(self, name: str, function: Callable[..., Any], *, exact: bool = False) -> None:
        self.name = name
        self.function = function
        self.exact = exact
        """Whether it says the same again when it is begun anew."""
        self.awaits = is_async(function)
        """Whether it needs an event loop."""
        parameters = inspect.signature(function).parameters
        self._task = _task_parameter(function, list(parameters))
        self._task_first = self._task is not None and next(iter(parameters)) == self._task

    def call(self, task: Task) -> Any:
        """Calls the function: the fields of an object are its keyword arguments, anything else its one argument."""
        positional: tuple[Any, ...] = ()
        keywords: dict[str, Any] = {}
        if isinstance(task.input, dict):
            keywords = dict(task.input)
            if self._task in keywords:
                raise TypeError(f"the input has a field {self._task!r}, which is where {self.name} gets its task")
        elif task.input is not None:
            positional = (task.input,)
        if self._task is not None and positional and self._task_first:
            positional = (task, *positional)
        elif self._task is not None:
            keywords[self._task] = task
        return self.function(*positional, **keywords)

    def run(self, task: Task) -> Any:
        """Runs a sync handler to its end and gives what it returns."""
        returned = self.call(task)
        if inspect.isgenerator(returned):
            return _drive(returned, task)
        if inspect.isawaitable(returned) or inspect.isasyncgen(returned):
            raise TypeError(f"{self.name} gives something to await; declare its handler with `async def`")
        return returned

    async def run_async(self, task: Task) -> Any:
        """Runs an async handler to its end and gives what it returns."""
        returned = self.call(task)
        if inspect.isasyncgen(returned):
            await _drive_async(returned, task)
            return None
        return await returned


def is_async(function: Callable[..., Any]) -> bool:
    """Whether it is, or makes, something to await."""
    inner = inspect.unwrap(function)
    if not inspect.isroutine(inner) and not isinstance(inner, partial):
        inner = type(inner).__call__
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def _task_parameter(function: Callable[..., Any], names: list[str]) -> str | None:
    """The parameter that takes the task."""
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # annotations of the program's that cannot be evaluated are as good as none
        hints = getattr(function, "__annotations__", {})
    for name in names:
        if hints.get(name) in (Task, "Task", "Task | None") or hints.get(name) == Task | None:
            return name
    return "task" if "task" in names else None


def _drive(generator: Generator[Any, Any, Any], task: Task) -> Any:
    """Sends what it yields. What cannot be sent, or a cancel, is raised at its `yield`."""
    following = partial(next, generator)
    step: Callable[[], Any] = following
    while True:
        try:
            chunk = step()
        except StopIteration as done:
            return done.value
        try:
            task.emit(chunk)
            step = following
        except BaseException as error:  # the generator decides
            step = partial(generator.throw, error)


async def _drive_async(generator: AsyncGenerator[Any, Any], task: Task) -> None:
    step: Callable[[], Awaitable[Any]] = generator.__anext__
    try:
        while True:
            chunk = await step()
            try:
                task.emit(chunk)
                # A generator that awaits nothing must not keep the loop from the others, nor a cancel from itself.
                await _breath()
                step = generator.__anext__
            except BaseException as error:  # the generator decides
                step = partial(generator.athrow, error)
    except StopAsyncIteration:
        return
    finally:
        await generator.aclose()


@types.coroutine
def _breath() -> Generator[None, None, None]:
    """Lets the event loop go round once."""
    yield
