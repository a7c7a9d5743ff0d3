"""Connections over real sockets: what never finishes is let go, and a refusal is an answer like others."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from types import SimpleNamespace

import pytest
from waitress import wasyncore

from model import ModelSlot
from tests.helpers.api import wait_until
from tests.helpers.fake_server import write_bots
from webui import create_app
from webui.server import connections
from webui.server.connections import surplus
from webui.server.guard import HEADERS, LOGIN_BODY, Guard
from webui.server.password import Password, place_of
from webui.serving import make_server, most_connections, open_socket

WORD = "correct horse"


@pytest.fixture
def serve(model, store):
    """serve(guard) answers on a port of its own, in a thread, until the test is over; -> the port, server."""
    stop, threads, servers = threading.Event(), [], []

    def start(guard=None, proxy=None):
        write_bots(store.folder / "bots")
        listener = open_socket("127.0.0.1", 0)
        server = make_server(create_app(ModelSlot.holding(model), store, guard=guard), listener, proxy)

        def loop():
            while not stop.is_set():
                wasyncore.loop(timeout=0.02, map=server._map, use_poll=True, count=1)

        threads.append(threading.Thread(target=loop))
        threads[-1].start()
        servers.append(server)
        return listener.getsockname()[1], server

    yield start
    stop.set()
    for thread in threads:
        thread.join()
    for server in servers:
        wasyncore.close_all(server._map)
        server.task_dispatcher.shutdown()


def connect(port, data=b""):
    client = socket.create_connection(("127.0.0.1", port), timeout=30)
    client.sendall(data)
    return client


def answer(client):
    """(status, headers, body) of an answer after which the server closes the connection."""
    data = b""
    while piece := client.recv(1 << 16):
        data += piece
    client.close()
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body


GET = b"GET /api/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(("request_", "status"), [
    (b"GET / HTTP/1.1\r\nHost: x\r\nbad header\r\n\r\n", 400), (b"nonsense\r\n\r\n", 400),
    (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"GET / HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501)])
def test_what_is_no_request_gets_an_answer_with_our_headers(serve, request_, status):
    port, _ = serve()
    got, headers, body = answer(connect(port, request_))
    assert got == status
    assert HEADERS.items() <= headers.items() and headers["Cache-Control"] == "no-store"
    assert headers["Content-Type"] == "application/json" and "Server" not in headers
    error = json.loads(body)["error"]
    assert error["message"].endswith(".") and error["code"].islower()


def test_hundreds_of_half_open_connections_keep_nobody_out(serve):
    port, server = serve()
    half = [connect(port, data) for data in (b"", b"GET / HTTP/1.1\r\nHost: lo", GET[:-2]) * 160]
    assert answer(connect(port, GET))[0] == 200
    assert len(server.active_channels) <= server.most
    for client in half:
        client.close()


@pytest.mark.parametrize("data", [b"", b"GET / HT", GET[:-4],
                                  b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
                                  b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
def test_what_never_finishes_is_let_go(serve, monkeypatch, data):
    for name in ("HEADER_SECONDS", "BODY_SECONDS"):
        monkeypatch.setattr(connections, name, 0.2)
    port, _ = serve()
    assert connect(port, data).recv(1) == b""


def test_a_slow_answer_and_an_idle_connection_outlive_the_deadlines(serve, model):
    port, server = serve()
    idle = http.client.HTTPConnection("localhost", port, timeout=30)
    idle.request("GET", "/api/status")
    assert idle.getresponse().read()
    slow, model.status = threading.Event(), lambda: {"waited": slow.wait(30)}
    waiting = connect(port, GET)
    wait_until(lambda: any(channel.requests for channel in list(server.active_channels.values())))
    # the client may have read an answer before its channel has noted it
    wait_until(lambda: not any(channel.is_late(channel.opened + 60)
                               for channel in list(server.active_channels.values())))
    slow.set()
    assert answer(waiting)[0] == 200
    idle.request("GET", "/api/status")
    assert idle.getresponse().status == 200
    idle.close()


def post(path, body, headers=b""):
    return (b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\n" + headers + b"Content-Length: "
            + str(len(body)).encode() + b"\r\n\r\n" + body)


def test_nobody_sends_a_large_body_before_they_are_logged_in(serve):
    port, _ = serve(Guard("127.0.0.1", Password(WORD, cost=16)))
    large = b'{"data": {"text": "' + b"x" * LOGIN_BODY + b'"}}'
    head = post(b"/api/sessions/import", large).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    assert answer(connect(port, head))[0] == 413  # nothing of the body was waited for
    asks = head.replace(b"Content-Type", b"Expect: 100-continue\r\nContent-Type", 1)
    assert answer(connect(port, asks))[0] == 413  # and it was not asked for
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    chunked = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk + b"1"
    assert answer(connect(port, chunked))[0] == 413
    status, headers, _ = answer(connect(port, post(b"/api/login", b'{"password": "correct horse"}')))
    assert status == 200
    cookie = b"Cookie: " + headers["Set-Cookie"].partition(";")[0].encode() + b"\r\n"
    status, _, body = answer(connect(port, post(b"/api/sessions/import", large, cookie)))
    assert status == 400 and b"no chat" in body


def test_the_cookie_has_the_ports_name_so_that_two_servers_do_not_share_it(serve):
    port, _ = serve(Guard("127.0.0.1", Password(WORD, cost=16)))
    _, headers, _ = answer(connect(port, post(b"/api/login", b'{"password": "correct horse"}')))
    assert headers["Set-Cookie"].startswith(f"parlor-login-{port}=")


def test_a_proxy_is_believed_where_requests_come_from_and_that_they_came_by_https(serve):
    """The cookie goes by https alone then, opens large bodies as ever, and guesses count by who guesses."""
    port, _ = serve(Guard("127.0.0.1", Password(WORD, cost=16)), proxy="127.0.0.1")

    def login(word, came_from):
        headers = f"X-Forwarded-For: {came_from}\r\nX-Forwarded-Proto: https\r\n".encode()
        return answer(connect(port, post(b"/api/login", json.dumps({"password": word}).encode(), headers)))

    assert [login("wrong guess", "203.0.113.5")[0] for _ in range(6)] == [401] * 5 + [429]
    assert login(WORD, "203.0.113.5")[0] == 429
    status, headers, _ = login(WORD, "198.51.100.1, 203.0.113.6")
    assert status == 200 and "; Secure" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert cookie.startswith(f"parlor-login-{port}=")
    large = b'{"data": {"text": "' + b"x" * LOGIN_BODY + b'"}}'
    headers = f"Cookie: {cookie}\r\nX-Forwarded-Proto: https\r\n".encode()
    assert answer(connect(port, post(b"/api/sessions/import", large, headers)))[0] == 400


@pytest.mark.parametrize("proxy", [None, "127.0.0.2"])
def test_nobody_else_is_believed(serve, proxy):
    port, _ = serve(Guard("127.0.0.1", Password(WORD, cost=16)), proxy=proxy)
    for number in range(6):
        headers = f"X-Forwarded-For: 203.0.113.{number}\r\nX-Forwarded-Proto: https\r\n".encode()
        status, _, _ = answer(connect(port, post(b"/api/login", b'{"password": "wrong guess"}', headers)))
    assert status == 429
    port, _ = serve(Guard("127.0.0.1", Password(WORD, cost=16)), proxy=proxy)
    _, got, _ = answer(connect(port, post(b"/api/login", b'{"password": "correct horse"}', headers)))
    assert "Set-Cookie" in got and "Secure" not in got["Set-Cookie"]


def channel(opened, place="a", is_answered=False):
    return SimpleNamespace(opened=opened, place=place, is_answered=is_answered)


def test_the_oldest_that_waits_for_nothing_makes_room():
    open_ones = [channel(0, is_answered=True), channel(1), channel(2), channel(3, "b"), channel(4, "b")]
    assert surplus(open_ones, 5) == []  # two of four from the place of the newest are its half
    assert surplus([*open_ones, channel(5)], 7) == [open_ones[1]]  # four from one place where three may be
    assert surplus([*open_ones, channel(5, "c")], 5) == [open_ones[1]]
    busy = [channel(number, f"{number}", is_answered=True) for number in range(5)]
    newest = channel(9, "c")
    assert surplus([*busy, newest], 5) == [newest] and surplus([], 5) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such limit")
@pytest.mark.parametrize(("files", "most"), [(256, 128), (1_024, 448), (-1, 448)])
def test_half_of_the_open_files_are_left_to_files(monkeypatch, files, most):
    monkeypatch.setattr("webui.serving.resource.getrlimit", lambda _which: (files, files))
    assert most_connections() == most


@pytest.mark.parametrize(("address", "place"), [
    ("192.168.1.7", "192.168.1.7"), ("::ffff:192.168.1.7", "192.168.1.7"), ("::1", "::/64"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("fe80::1%eth0", "fe80::/64"), ("", ""), ("unix", "unix")])
def test_a_place_is_an_address_or_the_network_of_a_home(address, place):
    assert place_of(address) == place
