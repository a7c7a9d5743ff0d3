"""What goes wrong with kernels. Light to import."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Called with one line and the share that is done, 0 to 1."""


class KernelBuildError(RuntimeError):
    """The kernels could not be built; the message is one sentence for the user, then the compiler's words."""


class KernelCheckError(RuntimeError):
    """Kernels computed something wrong when they were tried; the message says what."""


class KernelError(RuntimeError):
    """A kernel refused its arguments or failed; the message names the function and the reason."""

    def __init__(self, function: str, code: int, text: str) -> None:
        super().__init__(f"{function}: {text} (error {code})")
        self.function, self.code = function, code
