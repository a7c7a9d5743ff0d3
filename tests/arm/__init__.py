"""The kernels of 64-bit ARM on this machine: cross-compiled, run by qemu-user, called as if from a library.

`arm_kernels()` is a CpuKernels whose calls go to a process of runner.cpp. Both have a file as memory: weights
lie there, and what else a call reads or writes is copied there and back. Slow: for tests of small shapes.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.kernels.binding import HEADER, prototypes
from model.kernels.build.cpu import COMMON_FLAGS, SOURCES, CpuRecipe, Source, find_compiler
from model.kernels.build.library import REPOSITORY, build_library
from model.kernels.cpu_kernels import CpuKernels
from model.kernels.errors import KernelError
from model.kernels.linear import WeightStruct
from model.kernels.lora import AdapterStruct, LoraSegment, LoraWeight

FOLDER = Path(__file__).resolve().parent
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64"
_MEMORY = 256 << 20
_ALIGNMENT = 64
_OF_THIS_PROCESS = ("bias", "perm")
"""Pointers of a WeightStruct that a caller has set."""


def what_is_missing() -> str | None:
    """Why these tests cannot run here, if so."""
    absent = [name for name in (COMPILER, EMULATOR) if shutil.which(name) is None]
    return f"{' and '.join(absent)} missing (Debian: g++-aarch64-linux-gnu, qemu-user)" if absent else None


class ArmProcess:
    """What CpuKernels needs of a Library, in a process of the emulator.

    processor  which one it plays, as qemu names it
    """

    def __init__(self, program: Path, processor: str) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process lives
        self._file.truncate(_MEMORY)
        self._memory = mmap.mmap(self._file.fileno(), _MEMORY)
        self._tensor = torch.frombuffer(self._memory, dtype=torch.uint8)
        self._kept = 0  # bytes at the beginning that stay
        command = [EMULATOR, "-cpu", processor, str(program), f"/proc/self/fd/{self._file.fileno()}"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         pass_fds=[self._file.fileno()])
        self._names = list(prototypes(HEADER))
        self._base = self._answer()

    def keep(self, nbytes: int) -> Tensor:
        """uint8 [nbytes] of the common memory."""
        start = self._kept
        self._kept += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
        assert self._kept < _MEMORY, "the tests of ARM need more memory: raise _MEMORY"
        return self._tensor[start:start + nbytes]

    def address_of_copy(self, tensor: Tensor) -> int:
        """Where a copy of it is for the program, as long as that runs."""
        copy = self.keep(tensor.nbytes)
        copy.copy_(tensor.contiguous().view(-1).view(torch.uint8))
        return self._base + copy.data_ptr() - self._tensor.data_ptr()

    def function(self, name: str) -> Any:
        return functools.partial(self._run, name)

    def call(self, name: str, *arguments: Any) -> None:
        code = self._run(name, *arguments)
        if code != 0:
            raise KernelError(name, code, "on ARM")

    def _run(self, name: str, *arguments: Any) -> int:
        call = _Call(self._tensor, self._kept, self._base)
        words: list[int] = []
        for kind, value in zip(prototypes(HEADER)[name][1], arguments, strict=True):
            words += call.word(kind, value)
        head = struct.pack("<2q", self._names.index(name), len(arguments))
        assert self._process.stdin is not None
        self._process.stdin.write(head + struct.pack(f"<{len(words)}q", *words))
        self._process.stdin.flush()
        answer = self._answer()
        call.take_back()
        return ctypes.c_int(answer & 0xFFFFFFFF).value

    def _answer(self) -> int:
        assert self._process.stdout is not None
        said = self._process.stdout.read(8)
        if len(said) < 8:
            raise RuntimeError(f"the program for ARM ended with {self._process.wait()}")
        return struct.unpack("<q", said)[0]


class _Call:
    """The arguments of one call, copied behind what is kept of the common memory."""

    def __init__(self, memory: Tensor, start: int, base: int) -> None:
        self._memory, self._next, self._base = memory, start, base
        self._tensors: dict[int, tuple[Tensor, int]] = {}  # of a storage: bytes, place of the copy
        self._structs: list[tuple[ctypes.Structure, int]] = []

    def word(self, kind: str, value: Any) -> tuple[int, int]:
        """(whether it is a float, its bits)."""
        if kind == "float":
            return 1, struct.unpack("<I", struct.pack("<f", value))[0]
        if kind != "pointer":
            return 0, int(value)
        if value is None:
            return 0, 0
        if isinstance(value, Tensor):
            return 0, self._tensor(value)
        return 0, self._struct(value._obj)

    def take_back(self) -> None:
        """What the call has written."""
        for whole, place in self._tensors.values():
            whole.copy_(self._memory[place:place + whole.numel()])
        for target, place in self._structs:
            pointers = {name: getattr(target, name) for name in _OF_THIS_PROCESS if hasattr(target, name)}
            ctypes.memmove(ctypes.addressof(target), self._memory[place:].data_ptr(), ctypes.sizeof(target))
            for name, address in pointers.items():
                setattr(target, name, address)

    def _tensor(self, tensor: Tensor) -> int:
        first, address = self._memory.data_ptr(), tensor.data_ptr()
        if first <= address < first + _MEMORY:
            return self._base + address - first
        storage = tensor.untyped_storage()  # as a whole: arguments may share it
        start = storage.data_ptr()
        if start not in self._tensors:
            whole = torch.empty(0, dtype=torch.uint8).set_(storage)
            self._tensors[start] = whole, self._place(whole)
        return self._base + self._tensors[start][1] + address - start

    def _struct(self, found: ctypes.Structure) -> int:
        there = type(found).from_buffer_copy(found)
        if isinstance(found, WeightStruct):
            for name, count in (("bias", found.n), ("perm", found.k)):
                if address := getattr(found, name):
                    words = (ctypes.c_int32 * count).from_address(address)
                    copy = self._place(torch.frombuffer(words, dtype=torch.uint8))
                    setattr(there, name, self._base + copy)
        place = self._place(torch.frombuffer(bytearray(there), dtype=torch.uint8))
        self._structs.append((found, place))
        return self._base + place

    def _place(self, whole: Tensor) -> int:
        """A copy of these bytes; where it begins."""
        place = self._next
        self._next += -(-whole.numel() // _ALIGNMENT) * _ALIGNMENT
        assert self._next <= _MEMORY, "the tests of ARM need more memory: raise _MEMORY"
        self._memory[place:place + whole.numel()] = whole
        return place


class ArmKernels(CpuKernels):
    """Weights lie in the common memory."""

    def __init__(self, library: ArmProcess) -> None:
        super().__init__(library)  # type: ignore[arg-type]  # all that is asked of one
        self._allocate, self._process = library.keep, library

    def put_lora(self, weight: LoraWeight, number: int, segments: Sequence[LoraSegment]) -> None:
        """Its table points to tensors: they get copies in the common memory."""
        super().put_lora(weight, number, segments)
        if parts := weight.numbers.get(number):
            place = number * ctypes.sizeof(AdapterStruct)
            adapter = AdapterStruct.from_buffer(weight.table.numpy(), place)
            adapter.down, adapter.up = map(self._process.address_of_copy, parts)


def build_program(folder: Path) -> Path:
    """The program, of all sources with what the processor may have; -O1, since nobody waits for its speed."""
    functions = (f"reinterpret_cast<Any>({name}),\n" for name in prototypes(HEADER))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "functions.inc").write_text("".join(functions))
    runner = Source(str(FOLDER / "runner.cpp"))
    recipe = CpuRecipe(find_compiler(COMPILER), sources=(*SOURCES, runner), machine="aarch64",
                       flags=(*COMMON_FLAGS, "-O1", f"-I{folder}"), link_flags=("-static", "-pthread"))
    return build_library(recipe, build_root=folder)


@functools.cache
def arm_kernels(processor: str) -> ArmKernels:
    """A process of its own for each kind of processor."""
    return ArmKernels(ArmProcess(build_program(REPOSITORY / "build" / "arm"), processor))
