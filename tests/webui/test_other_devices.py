"""How other devices open this Parlor: the address that is told, and its QR code."""

from __future__ import annotations

import socket

import pytest

from app import tell_other_devices
from model import ModelSlot
from webui import create_app
from webui.server import other_devices
from webui.server.guard import Guard
from webui.server.other_devices import address_for_others, qr_svg, url_of
from webui.server.password import Password

WORD = "correct horse"


@pytest.fixture
def asked(monkeypatch):
    """What the system says of its way out, family by family: an address, or an error."""
    answers = {socket.AF_INET: "192.168.1.23", socket.AF_INET6: "2001:db8::23"}

    class Asked:
        def __init__(self, family, kind):
            assert kind == socket.SOCK_DGRAM
            self.answer = answers[family]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def connect(self, _address):
            if isinstance(self.answer, OSError):
                raise self.answer

        def getsockname(self):
            return (self.answer, 40_000)

    monkeypatch.setattr(other_devices.socket, "socket", Asked)
    monkeypatch.setattr(other_devices.socket, "gethostname", lambda: "box")
    return answers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "[::1]"])
def test_what_only_this_machine_reaches_has_no_address_for_others(host, asked):
    assert address_for_others(host, 5005) is None


def test_a_server_that_listens_everywhere_tells_its_address_in_the_network(asked):
    assert address_for_others("0.0.0.0", 5005) == "http://192.168.1.23:5005/"
    asked[socket.AF_INET] = OSError("no network")
    assert address_for_others("::", 5005) == "http://[2001:db8::23]:5005/"
    asked[socket.AF_INET] = "169.254.3.4"
    assert address_for_others("::", 5005) == "http://[2001:db8::23]:5005/", "link-local ones end at the cable"
    asked[socket.AF_INET6] = OSError("no network")
    assert address_for_others("0.0.0.0", 5005) == "http://box:5005/"


def test_a_server_that_listens_at_one_address_tells_that(asked):
    assert address_for_others("10.0.0.5", 80) == "http://10.0.0.5:80/"
    assert address_for_others("fd00::5", 80) == url_of("[fd00::5]", 80) == "http://[fd00::5]:80/"


def test_the_page_is_told_and_the_code_opens_nothing_without_the_password(model, store, asked):
    app = create_app(ModelSlot.holding(model), store, guard=Guard("0.0.0.0", Password(WORD, cost=16)))
    client = app.test_client()
    assert client.get("/api/other-devices.svg").status_code == 401
    client.post("/api/login", json={"password": WORD})
    assert client.get("/api/settings").json["address_for_others"] == "http://192.168.1.23:80/"
    answer = client.get("/api/other-devices.svg")
    assert answer.mimetype == "image/svg+xml" and answer.data == qr_svg("http://192.168.1.23:80/")


def test_on_this_machine_alone_there_is_no_code(app):
    client = app.test_client()
    assert client.get("/api/settings").json["address_for_others"] is None
    refused = client.get("/api/other-devices.svg")
    assert refused.status_code == 404 and "--host 0.0.0.0" in refused.json["error"]["hint"]


def test_the_console_tells_the_address_and_draws_only_where_it_can(capsys):
    tell_other_devices(None)
    assert capsys.readouterr().out == ""
    tell_other_devices("http://192.168.1.23:5005/")
    assert capsys.readouterr().out == "On other devices: http://192.168.1.23:5005/\n\n"
