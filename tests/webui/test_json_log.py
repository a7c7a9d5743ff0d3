"""--log json: by a real server, every line of which must be an object, and by hand."""

from __future__ import annotations

import io
import json
import logging
import re
import socket
import sys
import threading

import pytest

import app
from tests.helpers.api import MARLOW, Page
from tests.helpers.server_process import Server
from webui.server.json_log import JsonFormatter, Lines, log_requests

SECRET, WORD = "a-secret-word-of-a-message", "the-password-itself"


class JsonServer(Server):
    """Whose sign that the model is there ends as JSON does."""

    def read_until(self, pattern):
        return super().read_until(pattern.replace(r"\.$", r"\.\""))


def test_every_line_of_a_server_is_an_object_and_none_holds_what_was_said(tmp_path):
    (tmp_path / "password").write_text(WORD)
    with JsonServer(tmp_path, "--log", "json") as server:
        client = server.client()
        page = Page(client, MARLOW)
        page.say(f"hello {SECRET}")
        page.send("POST", "/messages", text=f"crash {SECRET}")
        client.get(f"/api/sessions?q={SECRET}")
        client.post("/api/login", {"password": WORD})
        client.post("/v1/chat/completions", {"messages": [{"role": "user", "content": f"crash {SECRET}"}]})
        client.get("/nothing/%C3%A4")
        with socket.create_connection(("127.0.0.1", server.port)) as odd:
            odd.sendall(b"GET /odd HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n")
            assert odd.recv(100).startswith(b"HTTP/1.1 400")
        assert server.end()[0] == 0
        out, err = server.process.communicate()
    lines = [json.loads(line) for line in (out + err).splitlines()]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert line["level"] in ("info", "warning", "error") and isinstance(line["what"], str)
    assert SECRET not in out + err and WORD not in out + err
    requests = {(line["method"], line["path"]): line for line in lines if line["what"] == "request"}
    assert requests["GET", "/nothing/ä"]["status"] == 404
    assert requests["POST", "/v1/chat/completions"]["status"] == 500
    assert requests["GET", "/odd"]["status"] == 400, "which no route has seen"
    assert requests["POST", "/api/login"]["ms"] > 0
    assert requests["POST", "/api/sessions"].keys() == {"time", "level", "what", "logger", "method", "path",
                                                        "status", "ms"}
    broken = [line for line in lines if "trace" in line]
    assert broken and all(line["level"] == "error" and "Traceback" in line["trace"] for line in broken)


def test_what_is_wrong_at_the_start_is_an_object_too(tmp_path, capsys):
    before = sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook
    hook, handlers = threading.excepthook, logging.root.handlers[:]
    logging.root.handlers.clear()
    try:
        assert app.main(["--log", "json", "--no-browser", "-d", str(tmp_path / "none")]) == 1
    finally:
        sys.stdout, sys.stderr, sys.excepthook, sys.unraisablehook = before
        threading.excepthook, logging.root.handlers[:] = hook, handlers
        logging.captureWarnings(False)
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "error" and line["what"].startswith("Parlor: there is no ")


def test_lines_that_are_printed_in_pieces_come_out_whole():
    console = io.StringIO()
    lines = Lines(console, "info")
    print("one", "two", file=lines)
    print("three", end="", file=lines)
    print("\n\n four \n", file=lines)
    whats = [json.loads(line)["what"] for line in console.getvalue().splitlines()]
    assert whats == ["one two", "three", "four"]
    assert not lines.isatty()


@pytest.mark.parametrize("said", ["plain", "ein \"Zitat\"\nin zwei Zeilen", "\x1b[31m\u2028"])
def test_a_record_is_one_line_whatever_it_says(said):
    line = JsonFormatter().format(logging.makeLogRecord({"name": "x", "levelname": "WARNING", "msg": "%s",
                                                         "args": (said,), "fields": {"n": 1}}))
    assert line.isascii() and len(line.splitlines()) == 1
    assert {key: value for key, value in json.loads(line).items() if key != "time"} == {
        "level": "warning", "what": said, "logger": "x", "n": 1}


def test_a_request_is_told_when_its_last_piece_has_gone_out(caplog):
    closed = []

    class Body:
        def __iter__(self):
            return iter([b"a", b"b"])

        def close(self):
            closed.append(True)

    def answers(_environ, start_response):
        start_response("206 Partial Content", [])
        return Body()

    caplog.set_level(logging.INFO, "parlor.requests")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x", "QUERY_STRING": "q=y"}
    body = log_requests(answers)(environ, lambda *_: None)
    assert list(body) == [b"a", b"b"] and not caplog.records
    body.close()
    fields = caplog.records[0].fields
    assert closed and {key: fields[key] for key in ("method", "path", "status")} == {
        "method": "GET", "path": "/x", "status": 206}
