"""Renders chat templates in a process of its own. A model folder's template is somebody else's program.

    python template_worker.py MEMORY_BYTES OUTPUT_CHARACTERS SECONDS

Jinja's immutable sandbox keeps the template from this program's objects; this process keeps it from the
server's time and memory: a template that runs for ever or builds gigabytes ends this process, no more.
Requests and answers are JSON after a length of four bytes, on standard input and output, so a template
gets plain data only. Imports nothing of Parlor. This is the one place that renders a chat template.
"""

from __future__ import annotations

import contextlib
import datetime
import faulthandler
import json
import signal
import struct
import sys
from functools import lru_cache
from typing import Any, BinaryIO, ClassVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

LENGTH = struct.Struct("<I")


class GenerationTag(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %} marks a reply for training; here it is only its content."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TooMuchOutput(Exception):
    """The template wrote more than it may."""


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """As transformers has it: Jinja's own escapes HTML, which a prompt must not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


@lru_cache(16)
def compiled(source: str) -> jinja2.Template:
    """The template with what transformers gives templates.

    https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/utils/chat_template_utils.py
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    del environment.globals["lipsum"]
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def render(source: str, variables: dict[str, Any], max_characters: int) -> str:
    """The rendered template. Raises TooMuchOutput, jinja2.TemplateError, or what its expressions raise."""
    parts, size = [], 0
    for part in compiled(source).generate(variables):
        size += len(part)
        if size > max_characters:
            raise TooMuchOutput
        parts.append(part)
    return "".join(parts)


def answer(request: dict[str, Any], max_characters: int) -> dict[str, str]:
    """{"text"} or {"error", "kind"}: "refused" by the template, "broken", or beyond a "limit"."""
    try:
        return {"text": render(request["template"], request["variables"], max_characters)}
    except TooMuchOutput:
        return {"kind": "limit", "error": f"it writes over {max_characters:,} characters"}
    except MemoryError:
        return {"kind": "limit", "error": "it needs more memory than templates get"}
    except RecursionError:
        return {"kind": "limit", "error": "it nests too deeply"}
    except jinja2.TemplateSyntaxError as error:
        return {"kind": "broken", "error": f"line {error.lineno}: {error.message}"}
    except jinja2.sandbox.SecurityError as error:
        return {"kind": "broken", "error": f"not allowed: {error}"}
    except jinja2.TemplateError as error:
        kind = "refused" if type(error) is jinja2.TemplateError else "broken"
        return {"kind": kind, "error": str(error)[:500]}
    except Exception as error:  # whatever an expression of the template raises
        return {"kind": "broken", "error": f"{type(error).__name__}: {error}"[:500]}


def limit_memory(max_bytes: int) -> None:
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


def read_message(stream: BinaryIO) -> Any:
    """The next message, or None at the end of the stream."""
    head = stream.read(LENGTH.size)
    return json.loads(stream.read(LENGTH.unpack(head)[0])) if len(head) == LENGTH.size else None


def write_message(stream: BinaryIO, message: Any) -> None:
    data = json.dumps(message).encode()
    stream.write(LENGTH.pack(len(data)) + data)
    stream.flush()


def main() -> None:
    """Answer until the input ends. No request takes longer than SECONDS, even if nobody waits any more."""
    max_bytes, max_characters, seconds = (int(text) for text in sys.argv[1:4])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the program that started this one
    limit_memory(max_bytes)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    write_message(sink, {"ready": True})
    while (request := read_message(source)) is not None:
        faulthandler.dump_traceback_later(seconds, exit=True)
        reply = answer(request, max_characters)
        faulthandler.cancel_dump_traceback_later()
        write_message(sink, reply)


if __name__ == "__main__":
    main()
