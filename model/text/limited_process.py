"""A module of ours in a process of its own, within limits of time and memory: for what strangers' files ask.

    process = LimitedProcess("model.text.template_worker", ProcessLimits(seconds=10, memory_bytes=1 << 30))
    answer = process.ask({"template": ...})

The process runs the module's `serve(answer)`. Requests and answers are JSON after a length of four bytes, on
standard input and output, so they are plain data. Knows nothing of what is asked.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

PATIENCE_SECONDS = 0.25
_START_SECONDS = 60.0
_LENGTH = struct.Struct("<I")
_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class ProcessLimits:
    """What one answer may take, and the process altogether."""

    seconds: float
    memory_bytes: int


class OverTime(Exception):
    """The process took too long and was ended."""


class Gone(Exception):
    """The process ended without an answer, as when it has used up its memory."""


class LimitedProcess:
    """Started at the first question, and again after a question ended it. Safe from several threads: one
    question at a time."""

    def __init__(self, module: str, limits: ProcessLimits) -> None:
        self._module, self._limits = module, limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def ask(self, request: Any) -> Any:
        """The answer to `request`. Raises OverTime or Gone; the next question starts a new process."""
        with self._lock:
            if self._child is not None:
                with contextlib.suppress(Gone):  # it may have died while idle
                    return self._ask(request)
            return self._ask(request)

    def close(self) -> None:
        """End the process; it starts again if something is asked after this."""
        with self._lock:
            self._end()

    def _ask(self, request: Any) -> Any:
        try:
            child = self._child or self._start()
            return self._exchange(child, request, self._limits.seconds)
        except BaseException:
            self._end()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", self._module, str(self._limits.memory_bytes),
                   str(int(self._limits.seconds) + 1)]
        try:
            self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=_ROOT,
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
        except OSError as error:
            raise Gone(f"no process can be started: {error.strerror}") from error
        self._exchange(self._child, None, _START_SECONDS)
        return self._child

    @staticmethod
    def _exchange(child: subprocess.Popen[bytes], request: Any, seconds: float) -> Any:
        """Send `request`, if any, and read the answer; a child that takes too long is killed."""
        killed = threading.Event()

        def kill() -> None:
            killed.set()
            child.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            assert child.stdin and child.stdout
            if request is not None:
                _write_message(child.stdin, request)
            reply = _read_message(child.stdout)
        except (OSError, ValueError):
            reply = None
        finally:
            timer.cancel()
        if reply is None:
            raise OverTime(f"it takes longer than {seconds:g} seconds") if killed.is_set() else Gone()
        return reply

    def _end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        for stream in (child.stdin, child.stdout):
            with contextlib.suppress(OSError):  # unsent data of a broken pipe
                if stream:
                    stream.close()
        child.wait()


class LimitedProcesses:
    """Several of them: a question that takes long holds up no other. Safe from several threads.

    One is enough as long as answers take milliseconds; a further one is started for a question that waits
    PATIENCE_SECONDS for those there are, up to `most`.
    """

    def __init__(self, module: str, limits: ProcessLimits, most: int) -> None:
        self._module, self._limits, self._most = module, limits, most
        self._changed = threading.Condition()
        self._all: list[LimitedProcess] = []
        self._idle: list[LimitedProcess] = []

    def ask(self, request: Any) -> Any:
        """See LimitedProcess.ask()."""
        process = self._take()
        try:
            return process.ask(request)
        finally:
            with self._changed:
                self._idle.append(process)
                self._changed.notify_all()

    def close(self) -> None:
        """End them, once none is asked; they start again if something is asked after this."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._idle) == len(self._all))
            for process in self._all:
                process.close()
            self._all, self._idle = [], []

    def _take(self) -> LimitedProcess:
        with self._changed:
            patience = PATIENCE_SECONDS if self._all else 0.0
            if not self._changed.wait_for(lambda: self._idle, patience) and len(self._all) < self._most:
                self._all.append(process := LimitedProcess(self._module, self._limits))
                return process
            self._changed.wait_for(lambda: self._idle)
            return self._idle.pop()


def serve(answer: Callable[[Any], Any]) -> None:
    """What the process does: answer until the input ends, as it does when the program that started it ends in
    whatever way. No answer takes longer than the limit, even if it never lets another thread run."""
    max_bytes, seconds = (int(text) for text in sys.argv[1:3])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the program that started this one
    _limit_memory(max_bytes)
    requests: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, requests), daemon=True).start()
    _write_message(sys.stdout.buffer, {"ready": True})
    while True:
        request = requests.get()
        faulthandler.dump_traceback_later(seconds, exit=True)
        reply = answer(request)
        faulthandler.cancel_dump_traceback_later()
        _write_message(sys.stdout.buffer, reply)


def _listen(source: BinaryIO, requests: SimpleQueue[Any]) -> None:
    """Take requests as they come, and end the process, whatever it is doing, once none can come any more."""
    with contextlib.suppress(Exception):
        while (request := _read_message(source)) is not None:
            requests.put(request)
    os._exit(0)


def _read_message(stream: BinaryIO) -> Any:
    """The next message, or None at the end of the stream."""
    head = stream.read(_LENGTH.size)
    return json.loads(stream.read(_LENGTH.unpack(head)[0])) if len(head) == _LENGTH.size else None


def _write_message(stream: BinaryIO, message: Any) -> None:
    data = json.dumps(message).encode()
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _limit_memory(max_bytes: int) -> None:
    """Have the system refuse this process more than `max_bytes`."""
    if sys.platform == "win32":
        _limit_memory_windows(max_bytes)
        return
    import resource

    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    wanted = max_bytes if hard == resource.RLIM_INFINITY else min(max_bytes, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has no such limit; the time limit remains
        resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))


def _limit_memory_windows(max_bytes: int) -> None:
    """A job object with a limit for each process in it.

    https://learn.microsoft.com/en-us/windows/win32/api/winnt/ns-winnt-jobobject_extended_limit_information
    """
    import ctypes

    size_t, dword, int64 = ctypes.c_size_t, ctypes.c_uint32, ctypes.c_int64

    class BasicLimits(ctypes.Structure):
        _fields_ = (("process_time", int64), ("job_time", int64), ("flags", dword),
                    ("min_working_set", size_t), ("max_working_set", size_t), ("active_processes", dword),
                    ("affinity", size_t), ("priority", dword), ("scheduling", dword))

    class ExtendedLimits(ctypes.Structure):
        _fields_ = (("basic", BasicLimits), ("io_counters", ctypes.c_uint64 * 6), ("process_memory", size_t),
                    ("job_memory", size_t), ("peak_process_memory", size_t), ("peak_job_memory", size_t))

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)  # type: ignore[attr-defined]
    handle = ctypes.c_void_p
    kernel.CreateJobObjectW.restype = kernel.GetCurrentProcess.restype = handle
    kernel.CreateJobObjectW.argtypes = [handle, handle]
    kernel.SetInformationJobObject.argtypes = [handle, ctypes.c_int, handle, dword]
    kernel.AssignProcessToJobObject.argtypes = [handle, handle]
    limits = ExtendedLimits()
    limits.basic.flags = 0x100  # JOB_OBJECT_LIMIT_PROCESS_MEMORY
    limits.process_memory = max_bytes
    job = kernel.CreateJobObjectW(None, None)
    kernel.SetInformationJobObject(job, 9, ctypes.byref(limits), ctypes.sizeof(limits))
    kernel.AssignProcessToJobObject(job, kernel.GetCurrentProcess())
