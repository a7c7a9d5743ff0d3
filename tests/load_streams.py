"""Many readers of running replies, by hand: python -m tests.load_streams --readers 64 --replies 1

Each token is the time at which the model made it (tests.fake_model "clock"). Prints the delay from there to
the reader, for the last token of each event (earlier ones wait for it on purpose), whether a token was
missed, and what the server took. With --deaf N, N more readers never read a byte. With --end-after S the
server gets SIGTERM in the middle, and every reader must have all that was kept. Linux only.
"""

from __future__ import annotations

import argparse
import os
import selectors
import tempfile
import threading
import time
from pathlib import Path

from .api import MARLOW, Event, Page, parse_events
from .fake_server import write_bots
from .server_process import EventSocket, Server


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def last_stamp(data: bytes) -> float | None:
    """The time in the last whole text event of `data`."""
    at = data.rfind(b"event: text\ndata: ")
    line, end, _ = data[at + 18:].partition(b"\n") if at >= 0 else (b"", b"", b"")
    return float(line.rstrip(b'"}').rpartition(b" ")[2].lstrip(b'"')) if end else None


def watch(readers: list[EventSocket]) -> list[float]:
    """Read all of them to their end; the delays in milliseconds."""
    chosen = selectors.DefaultSelector()
    delays: list[float] = []
    for reader in readers:
        chosen.register(reader.socket, selectors.EVENT_READ, reader)
    while chosen.get_map():
        for key, _ in chosen.select():
            piece = key.data.socket.recv(1 << 16)
            now = time.monotonic() * 1000
            key.data.data += piece
            if not piece:
                chosen.unregister(key.data.socket)
            elif (stamp := last_stamp(piece)) is not None:
                delays.append(now - stamp)
    return delays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("--replies", type=int, default=1)
    parser.add_argument("--deaf", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100.0, help="tokens a second of each reply")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--end-after", type=float, metavar="S", help="SIGTERM after S seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        write_bots(Path(where) / "bots")
        with Server(Path(where), "--delay", str(1 / options.rate)) as server:
            run(server, options)


def run(server: Server, options: argparse.Namespace) -> None:
    tokens = int(options.rate * options.seconds)
    replies = []
    for _ in range(options.replies):
        page = Page(server.client(), MARLOW)
        page.set(sampling={"max_new_tokens": tokens})
        replies.append(page.send("POST", "/messages", text=f"clock {tokens}")["reply"]["reply_id"])
    deaf = [EventSocket(server.port, replies[0], buffer=1024) for _ in range(options.deaf)]
    readers = [EventSocket(server.port, replies[n % len(replies)]) for n in range(options.readers)]
    print(f"{len(readers)} readers, {len(replies)} replies, {len(deaf)} deaf: ", end="")
    if options.end_after:
        end_in_the_middle(server, readers, options.end_after)
    else:
        read_all(server, readers, tokens)


def end_in_the_middle(server: Server, readers: list[EventSocket], seconds: float) -> None:
    ended: list[tuple[int, float]] = []
    ending = threading.Timer(seconds, lambda: ended.append(server.end()))
    ending.start()
    watch(readers)
    ending.join()
    for reader in readers:
        text, last = text_and_last(reader)
        assert last.name == "error" and last.data["partial"]["finish_reason"] == "interrupted", last
        assert last.data["partial"]["text"] == text != ""
    print(f"SIGTERM after {seconds:.0f} s: each has a last event and all that was kept; "
          f"end: code {ended[0][0]} after {ended[0][1]:.2f} s")


def read_all(server: Server, readers: list[EventSocket], tokens: int) -> None:
    pid, started = server.process.pid, time.monotonic()
    cpu, memory = cpu_seconds(pid), memory_mib(pid)
    delays = sorted(watch(readers))
    seconds = time.monotonic() - started
    for reader in readers:
        text, last = text_and_last(reader)
        assert last.name == "done", last
        assert len(text.split()) == tokens
    p50, p99 = (delays[int(len(delays) * share)] for share in (0.5, 0.99))
    print(f"{seconds:.0f} s, no token missed; "
          f"delay p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {delays[-1]:.1f} ms; "
          f"server {100 * (cpu_seconds(pid) - cpu) / seconds:.0f}% of a core, "
          f"memory {memory:.0f} -> {memory_mib(pid):.0f} MiB")
    code, end = server.end()
    print(f"end: code {code} after {end:.2f} s")


def text_and_last(reader: EventSocket) -> tuple[str, Event]:
    """What the reader got in all, and how it ended."""
    events = parse_events(reader.data.partition(b"\r\n\r\n")[2])
    return "".join(event.data["text"] for event in events if event.name == "text"), events[-1]


if __name__ == "__main__":
    main()
