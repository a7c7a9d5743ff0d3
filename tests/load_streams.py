"""Many readers of running replies, by hand: python -m tests.load_streams --readers 64 --replies 1

Each token is the time at which the model made it (fake_model's "clock"). Prints the delay from there to
the reader's socket, whether a token was missed, and what the server took. The kernel notes when bytes reach
a socket, so how late this process reads them is no part of the delay; that is printed beside it, as both
share the machine. With --deaf N, N more readers never read a byte. With --beside MB, 40 messages are said
meanwhile in a session of so many megabytes. With --end-after S the server gets SIGTERM in the middle, and
every reader must have all that was kept. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import struct
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.api import MARLOW, Event, Page, parse_events
from tests.helpers.fake_server import write_bots
from tests.helpers.server_process import EventSocket, HttpClient, Server
from webui import strict_json
from webui.storage.schema import USER, new_message, new_session

SO_TIMESTAMPING = 37  # asm-generic/socket.h; the same number names the answer
TIMESTAMPS_OF_ARRIVAL = 1 << 3 | 1 << 4  # SOF_TIMESTAMPING_RX_SOFTWARE, _SOFTWARE of linux/net_tstamp.h
TIMESPEC = struct.Struct("qq")
SETTLING_MS = 1000.0  # tokens made before a reader was there are no part of the delay
SAID_BESIDE = 40  # messages
BESIDE_BYTES = 2_000  # of each message of the large session
WORDS = "Löse the model, 日本 \"quoted\"\n"


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def stamps(data: bytes) -> list[float]:
    """The times in the whole text events of `data`."""
    found = []
    for event in data.split(b"event: text\ndata: ")[1:]:
        text, end, _ = event.partition(b"\n")
        found += map(float, json.loads(text)["text"].split()) if end else ()
    return found


def arrival(ancillary: list[tuple[int, int, bytes]]) -> float | None:
    """When the kernel had the last of the bytes that were received: seconds since 1970, as time.time()."""
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPING):
            seconds, nanoseconds = TIMESPEC.unpack_from(value)
            return seconds + nanoseconds / 1e9
    return None


@dataclass(frozen=True)
class Delays:
    """Milliseconds, ascending."""

    of_tokens: list[float]  # from the model to the reader's socket, each token
    of_events: list[float]  # the same for the last token of each event: what the others wait for is left out
    unread: list[float]     # from there until this process read it, each event


def watch(readers: list[EventSocket]) -> Delays:
    """Read all of them to their end."""
    chosen = selectors.DefaultSelector()
    pieces: dict[EventSocket, list[bytes]] = {reader: [reader.data] for reader in readers}
    of_tokens, of_events, unread = [], [], []
    offset = time.time() - time.monotonic()
    begun = time.monotonic() * 1000 + SETTLING_MS
    for reader in readers:
        reader.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING, TIMESTAMPS_OF_ARRIVAL)
        chosen.register(reader.socket, selectors.EVENT_READ, reader)
    while chosen.get_map():
        for key, _ in chosen.select():
            piece, ancillary, _, _ = key.data.socket.recvmsg(1 << 16, 256)
            now = time.time()
            pieces[key.data].append(piece)
            arrived = arrival(ancillary)
            if not piece:
                chosen.unregister(key.data.socket)
            elif arrived is not None and (made := [stamp for stamp in stamps(piece) if stamp > begun]):
                of_tokens += [(arrived - offset) * 1000 - stamp for stamp in made]
                of_events.append(of_tokens[-1])
                unread.append((now - arrived) * 1000)
    for reader in readers:
        reader.data = b"".join(pieces[reader])
    return Delays(sorted(of_tokens), sorted(of_events), sorted(unread))


def summary(values: list[float]) -> str:
    p50, p99 = (values[int(len(values) * part)] for part in (0.5, 0.99))
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, worst {values[-1]:.1f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", type=int, default=64)
    parser.add_argument("--replies", type=int, default=1)
    parser.add_argument("--deaf", type=int, default=0)
    parser.add_argument("--beside", type=int, default=0, metavar="MB")
    parser.add_argument("--rate", type=float, default=100.0, help="tokens a second of each reply")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--end-after", type=float, metavar="S", help="SIGTERM after S seconds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as where:
        write_bots(Path(where) / "bots")
        beside = write_session(Path(where) / "chats", options.beside) if options.beside else ""
        with Server(Path(where), "--delay", str(1 / options.rate)) as server:
            run(server, options, beside)


def write_session(folder: Path, megabytes: int) -> str:
    """A session of so many megabytes; its id."""
    session = new_session([])
    text = (WORDS * BESIDE_BYTES)[:BESIDE_BYTES * len(WORDS) // len(WORDS.encode())]
    for _ in range(megabytes * 1_000_000 // BESIDE_BYTES):
        session["messages"].append(message := new_message(USER, "User", text, session["leaf"]))
        session["leaf"] = message["id"]
    folder.mkdir()
    (folder / f"{session['id']}.json").write_bytes(strict_json.pretty(session))
    return session["id"]


def say_beside(server: Server, session_id: str, seconds: float) -> None:
    """Say SAID_BESIDE messages in a large session, over so many seconds, as the page does."""
    client, pid, url = HttpClient(server.port), server.process.pid, f"/api/sessions/{session_id}"
    revision = client.get(url).json["session"]["revision"]
    took, sizes = [], []
    cpu, started, memory = cpu_seconds(pid), time.monotonic(), memory_mib(pid)
    for number in range(SAID_BESIDE):
        time.sleep(max(0.0, started + number * seconds / SAID_BESIDE - time.monotonic()))
        begun = time.monotonic()
        said = {"revision": revision, "text": "more", "reply": False}
        answer = client.open(f"{url}/messages", "POST", said, {"Known-Revision": str(revision)})
        took.append((time.monotonic() - begun) * 1000)
        sizes.append(len(answer.data))
        revision = answer.json["session"]["revision"]
    each = (cpu_seconds(pid) - cpu) / SAID_BESIDE
    print(f"{SAID_BESIDE} messages beside: {summary(sorted(took))}, at most {max(sizes):,} bytes back; "
          f"server {each:.3f} s of the processor meanwhile for each, memory "
          f"{memory:.0f} -> {memory_mib(pid):.0f} MiB")


def run(server: Server, options: argparse.Namespace, beside: str) -> None:
    tokens = int(options.rate * options.seconds)
    replies = []
    for _ in range(options.replies):
        page = Page(server.client(), MARLOW)
        page.set(sampling={"max_new_tokens": tokens})
        replies.append(page.send("POST", "/messages", text=f"clock {tokens}")["reply"]["reply_id"])
    deaf = [EventSocket(server.port, replies[0], buffer=1024) for _ in range(options.deaf)]
    readers = [EventSocket(server.port, replies[n % len(replies)]) for n in range(options.readers)]
    print(f"{len(readers)} readers, {len(replies)} replies, {len(deaf)} deaf")
    saying = threading.Thread(target=say_beside, args=(server, beside, options.seconds - 2))
    if beside:
        saying.start()
    if options.end_after:
        end_in_the_middle(server, readers, options.end_after)
    else:
        read_all(server, readers, tokens)
        if beside:
            saying.join()
        code, seconds = server.end()
        print(f"end: code {code} after {seconds:.2f} s")


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
    delays = watch(readers)
    seconds = time.monotonic() - started
    for reader in readers:
        text, last = text_and_last(reader)
        assert last.name == "done", last
        assert len(text.split()) == tokens
    print(f"{seconds:.0f} s, no token missed; "
          f"server {100 * (cpu_seconds(pid) - cpu) / seconds:.0f}% of a core, "
          f"memory {memory:.0f} -> {memory_mib(pid):.0f} MiB")
    print(f"delay of {len(delays.of_tokens):,} tokens: {summary(delays.of_tokens)}")
    print(f"of the last in each of {len(delays.of_events):,} events: {summary(delays.of_events)}")
    print(f"read after: {summary(delays.unread)}")


def text_and_last(reader: EventSocket) -> tuple[str, Event]:
    """What the reader got in all, and how it ended."""
    events = parse_events(reader.data.partition(b"\r\n\r\n")[2])
    return "".join(event.data["text"] for event in events if event.name == "text"), events[-1]


if __name__ == "__main__":
    main()
