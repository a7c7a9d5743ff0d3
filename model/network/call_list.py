"""A step recorded once and replayed: the flat list of native calls that the operations made.

Every argument is an address or a size, and what changes from step to step lies in memory at the same place,
so a step of the same number of tokens and sequences can be repeated without Python's checks and views.
Knows how compiled operations make their calls (`ops.call`), not what they compute. Operations in plain torch
have no such calls and cannot be recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from model.kernels.operations import Operations

MAX_LISTS = 64


class Recorder(Protocol):
    """How steps are repeated on a device: CallLists here, CudaGraphs on a GPU."""

    sizes: tuple[int, ...]
    """Rows of steps to run once while loading, so that they can be repeated; smaller steps are filled up to
    the next of them. Empty: steps come as they are, and there is nothing to run ahead."""

    def run(self, key: Any, step: Callable[[], None]) -> None:
        """Run `step`, or repeat what it did under this key before.

        Every tensor that it passes must stay where it is for as long as this object lives.
        """

    def seal(self) -> None:
        """Loading is over: what has not run under its key yet will not be recorded."""

    def forget(self, is_old: Callable[[Any], bool]) -> None:
        """Steps of these keys are other ones now."""


class CallLists:
    """Recorded calls by key; the least lately recorded are forgotten when there are too many."""

    sizes: tuple[int, ...] = ()

    def __init__(self, ops: Operations) -> None:
        self._ops = ops
        self._lists: dict[Any, list[tuple[Any, tuple[Any, ...]]]] = {}
        self._seen: set[Any] = set()

    def run(self, key: Any, step: Callable[[], None]) -> None:
        """Run `step`, from its second time on as a recording of its native calls."""
        calls = self._lists.get(key)
        if calls is not None:
            for function, arguments in calls:
                code = function(*arguments)
                if code:
                    raise RuntimeError(f"a kernel failed in a recorded step: "
                                       f"{self._ops.library.function('error_text')(code).decode()}")
        elif self._ops.library is not None and key in self._seen:
            self._record(key, step)
        else:
            if len(self._seen) > 1024:
                self._seen.clear()
            self._seen.add(key)
            step()

    def seal(self) -> None:
        """Nothing to do: a recording costs as much as a step, whenever it is made."""

    def forget(self, is_old: Callable[[Any], bool]) -> None:
        self._lists = {key: calls for key, calls in self._lists.items() if not is_old(key)}

    def _record(self, key: Any, step: Callable[[], None]) -> None:
        ops, original = self._ops, self._ops.call
        calls: list[tuple[Any, tuple[Any, ...]]] = []

        def noting(name: str, *arguments: Any) -> None:
            original(name, *arguments)
            function = ops.library.function(name)
            converted = (_converted(kind, a) for kind, a in zip(function.argtypes, arguments, strict=True))
            calls.append((function, tuple(converted)))

        ops.call = noting
        try:
            step()
        finally:
            ops.call = original
        if len(self._lists) >= MAX_LISTS:
            self._lists.pop(next(iter(self._lists)))
        self._lists[key] = calls


def _converted(kind: Any, argument: Any) -> Any:
    """The C value, so that a replay does not convert it each time (0.9 for 2.4 us with ten arguments)."""
    if isinstance(argument, Tensor):
        return kind(argument.data_ptr())
    return kind(argument) if isinstance(argument, int | float) else argument
