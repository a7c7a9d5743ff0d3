"""Load a kernel library and call its functions by the prototypes in kernels.h.

The header is the one table of signatures: nothing here knows a single operation. ctypes lets go of the GIL
during each call.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
from pathlib import Path
from typing import Any

from torch import Tensor

from model.kernels.errors import KernelError

HEADER = Path(__file__).with_name("kernels.h")
_C_TYPES: dict[str, Any] = {"int": ctypes.c_int, "int64_t": ctypes.c_int64, "uint64_t": ctypes.c_uint64,
                            "int32_t": ctypes.c_int32, "float": ctypes.c_float, "double": ctypes.c_double}


@functools.cache
def prototypes(header: Path = HEADER) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Function name -> (return type, argument types) of every PARLOR_API function in a header."""
    text = re.sub(r"/\*.*?\*/", "", header.read_text(encoding="utf-8"), flags=re.DOTALL)
    found = {}
    for type_, name, arguments in re.findall(r"PARLOR_API\s+([\w\s*]+?)\s*(\w+)\(([^)]*)\);", text):
        types: list[str] = []
        for argument in arguments.split(","):
            words = argument.replace("*", " * ").split()
            if words == ["void"]:
                continue
            types.append("pointer" if "*" in words else words[0])
        found[name] = (type_.strip(), tuple(types))
    return found


class Library:
    """The functions of one shared library; `call` turns error codes into KernelError.

    headers  where the prototypes of its functions are
    """

    def __init__(self, path: Path, headers: tuple[Path, ...] = (HEADER,)) -> None:
        self.path, self.headers = path, headers
        self._library = ctypes.CDLL(os.fspath(path))

    @functools.cache  # noqa: B019 - libraries live as long as the process
    def function(self, name: str) -> Any:
        """The ctypes function with the types of its prototype."""
        type_, arguments = next(table[name] for table in map(prototypes, self.headers) if name in table)
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p if "*" in type_ else _C_TYPES[type_]
        function.argtypes = [ctypes.c_void_p if a == "pointer" else _C_TYPES[a] for a in arguments]
        return function

    def call(self, name: str, *arguments: Any) -> None:
        """Call a function that returns an error code. Tensors stand for their first element's address."""
        code = self.function(name)(*(a.data_ptr() if isinstance(a, Tensor) else a for a in arguments))
        if code != 0:
            raise KernelError(name, code, self.function("error_text")(code).decode())


@functools.cache
def load_library(path: Path, headers: tuple[Path, ...] = (HEADER,)) -> Library:
    """The library at `path`, loaded once for the process."""
    return Library(path, headers)
