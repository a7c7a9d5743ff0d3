"""The guard: every route of the app, found by walking its url map, against every way of getting past it."""

from __future__ import annotations

import re
import time

import pytest

from model import ModelSlot
from tests.helpers.api import MARLOW, Page
from webui import create_app
from webui.server.guard import (
    LARGE_BODIES,
    MAX_BODY,
    OPEN_ENDPOINTS,
    Guard,
    content_security_policy,
)
from webui.server.other_devices import is_loopback
from webui.server.password import Password
from webui.server.programs import protocol_of

WORD = "correct horse"
SOME_ID = "0123456789abcdef"
TRAVERSALS = [
    f"{up * depth}{name}"
    for up in ("../", "..\\", "%2e%2e/", "..%2f", "%252e%252e%252f", "....//", "..;/", "/", "\\", "file:///")
    for depth in (1, 3, 8)
    for name in ("etc/passwd", "app.py", ".lock", "windows/win.ini", "sessions/chats/x.json",
                 "..", ".", "\0", "con", "etc/passwd%00.json")]


def routes(app):
    """(method, path) of every route, with a well-formed id in every place."""
    for rule in app.url_map.iter_rules():
        path = re.sub(r"<[^>]*>", "page.js" if rule.endpoint == "static" else SOME_ID, rule.rule)
        for method in rule.methods:
            yield rule.endpoint, method, path


@pytest.fixture
def locked(model, store):
    """The app with a password, listening beyond loopback."""
    return create_app(ModelSlot.holding(model), store, guard=Guard("0.0.0.0", Password(WORD, cost=16)))


def test_there_are_routes_to_walk(app):
    assert len(list(routes(app))) > 60


def test_without_the_password_no_route_answers_but_the_login(locked):
    client = locked.test_client()
    for endpoint, method, path in routes(locked):
        status = client.open(path, method=method).status_code
        if endpoint in OPEN_ENDPOINTS:
            assert status != 401, (method, path)
        else:
            assert status == 401, (method, path)
    assert client.get("/api/nothing/here").status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "",
                                  "evil:5005", "[::2]", "127.0.0.2", "localhost:5005:5005", "a b",
                                  "localhost@evil.example", "192.168.1.7", "%6cocalhost", "localhost/",
                                  "0.0.0.0"])
def test_under_a_foreign_name_no_route_answers(app, host):
    client = app.test_client()
    for _endpoint, method, path in routes(app):
        response = client.open(path, method=method, headers={"Host": host})
        assert response.status_code == 403, (method, path)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:5005", "127.0.0.1:80", "[::1]:5005", "[::1]"])
def test_every_name_of_loopback_answers(client, host):
    assert client.get("/api/status", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("headers", [
    {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "https://evil.example"},
    {"Origin": "null"}, {"Origin": "http://["}, {"Origin": "http://localhost:99999999999"}, {"Origin": "http://localhost:1"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "nonsense"}, {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost"}])
def test_no_other_origin_reaches_any_route(app, headers):
    client = app.test_client()
    for _endpoint, method, path in routes(app):
        response = client.open(path, method=method, headers=headers)
        assert response.status_code == 403, (method, path)
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("headers", [
    {"Sec-Fetch-Site": "same-origin"}, {"Origin": "http://localhost"}, {},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}])
def test_the_page_itself_and_programs_may_send(client, headers):
    assert client.post("/api/sessions", json={}, headers=headers).status_code == 201


def test_a_typed_address_may_read_but_not_write(client):
    typed = {"Sec-Fetch-Site": "none"}
    assert client.get("/api/status", headers=typed).status_code == 200
    assert client.post("/api/sessions", json={}, headers=typed).status_code == 403


def test_a_link_from_elsewhere_opens_the_page_and_nothing_else(app):
    client = app.test_client()
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/", headers=link).status_code != 403
    assert client.get("/api/sessions", headers=link).status_code == 403
    assert client.post("/", headers=link).status_code == 403


@pytest.mark.parametrize("content_type", [
    "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/jsonp",
    "text/json", "application/json-patch+json", "", "x"])
def test_only_json_bodies_are_taken_by_any_route(app, content_type):
    client = app.test_client()
    for _endpoint, method, path in routes(app):
        response = client.open(path, method=method, data=b'{"revision":1}', content_type=content_type)
        if protocol_of(path) != "ollama":
            assert response.status_code == 415, (method, path)
        elsewhere = client.open(path, method=method, data=b'{"revision":1}', content_type=content_type,
                                headers={"Origin": "https://evil.example"})
        assert elsewhere.status_code == 403, (method, path)


def test_every_answer_carries_the_headers(app):
    client = app.test_client()
    for _endpoint, method, path in [*routes(app), ("", "GET", "/nothing"), ("", "PUT", "/")]:
        response = client.open(path, method=method)
        policy = response.headers["Content-Security-Policy"]  # the page's names two hashes, too
        assert re.sub(r" 'sha256-[^']+'", "", policy) == content_security_policy()
        assert ("sha256" in policy) == ((method, path) in (("GET", "/"), ("HEAD", "/")))
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["X-Frame-Options"] == "DENY"
        assert "unsafe" not in policy
        assert not response.headers.get("Server", "").startswith("waitress")
        response.close()


def test_api_answers_are_not_stored(client):
    assert client.get("/api/status").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("body", [
    b"[" * 100_000, b"{", b"null", b"[]", b"1", b'"x"', b'{"text": NaN}',
    b'{"revision": 1e999}', b"\xff\xfe{}",
    b'{"text": "\\ud800"}', b'{"\\udc00": 1}', b"{" * 50_000, b'{"a":' * 50_000,
    b'{"revision": ' + b"9" * 5_000 + b"}",
    b'{"revision": -9007199254740993}', b'{"revision": 1.5}', b'{"text": {"a": 1}, "revision": 1}'])
def test_no_body_makes_any_route_fail(app, client, body):
    page = Page(client)
    for _endpoint, method, path in routes(app):
        if method in ("POST", "PUT", "PATCH", "DELETE") and "/login" not in path:
            for real in (path, path.replace(SOME_ID, page.session["id"], 1)):
                response = client.open(real, method=method, data=body, content_type="application/json")
                assert 400 <= response.status_code < 500, (method, real)
                error = response.json["error"]  # Ollama has but a sentence
                assert error if isinstance(error, str) else error["message"]
                assert "Traceback" not in response.text


def test_a_body_beyond_its_routes_limit_is_refused(app):
    client = app.test_client()
    for endpoint, method, path in routes(app):
        if method in ("POST", "PUT", "PATCH", "DELETE"):
            most = LARGE_BODIES.get(endpoint, MAX_BODY)
            body = b" " * (most + 1)
            response = client.open(path, method=method, data=body, content_type="application/json")
            assert response.status_code == 413, (method, path)
            assert f"{most >> 20} MiB" in str(response.json["error"])


def test_only_an_import_takes_more_than_the_usual_limit():
    assert LARGE_BODIES == {"transfer.import_session": 64 << 20, "documents.read_pdf": 28 << 20}
    assert MAX_BODY == 4 << 20


def test_no_path_leads_outside(app, client, store, tmp_path):
    (tmp_path / "secret.json").write_text('{"secret": "root:x:0:0"}', encoding="utf-8")
    assert len(TRAVERSALS) >= 300
    for text in TRAVERSALS:
        for path in (f"/static/{text}", f"/api/sessions/{text}", f"/api/bots/{text}",
                     f"/api/replies/{text}/events", "/" + text.lstrip("/\\")):
            response = client.get(path)
            if response.status_code not in (308, 400, 403, 404, 405):
                assert response.json.keys() <= {"sessions", "bots", "problems"}
            assert b"root:" not in response.data and b"import" not in response.data
            response.close()


def test_a_fault_of_ours_shows_an_id_and_no_trace(app, client, model, caplog):
    def broken():
        raise RuntimeError("secret at /home/someone")

    model.status = broken
    response = client.get("/api/status")
    assert response.status_code == 500 and response.json["error"]["code"] == "internal"
    assert not any(word in response.text for word in ("secret", "/home", "Traceback"))
    assert response.json["id"] in caplog.text and "secret at /home" in caplog.text


def test_the_login_gives_a_cookie_that_opens_everything(locked):
    client = locked.test_client()
    assert client.post("/api/login", json={"password": "wrong"}).status_code == 401
    assert client.get("/api/status").status_code == 401
    response = client.post("/api/login", json={"password": WORD})
    cookie = response.headers["Set-Cookie"]
    assert response.json == {"logged_in": True}
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and WORD not in cookie
    assert client.get("/api/status").status_code == 200
    client.set_cookie("parlor-login-80", "forged")
    assert client.get("/api/status").status_code == 401


def test_the_cookie_does_not_excuse_another_origin(locked):
    client = locked.test_client()
    client.post("/api/login", json={"password": WORD})
    response = client.post("/api/sessions", json={}, headers={"Origin": "https://evil.example"})
    assert response.status_code == 403


def guess(client, word, address="10.0.0.1"):
    return client.post("/api/login", json={"password": word}, environ_base={"REMOTE_ADDR": address})


def test_guessing_is_slowed_down_for_whoever_guesses(locked):
    client = locked.test_client()
    answers = [guess(client, f"guess {number}") for number in range(7)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 2
    assert 0 < int(answers[-1].headers["Retry-After"]) <= 61
    assert guess(client, WORD).status_code == 429  # the right one waits too
    assert guess(client, WORD, "10.0.0.2").status_code == 200  # and nobody else does


def test_one_home_of_ipv6_is_one_guesser(locked):
    client = locked.test_client()
    for number in range(5):
        assert guess(client, "wrong", f"2001:db8:1:2::{number}").status_code == 401
    assert guess(client, WORD, "2001:db8:1:2:ffff::1").status_code == 429
    assert guess(client, WORD, "2001:db8:1:3::1").status_code == 200


def test_the_right_password_clears_the_wrong_ones(locked):
    client = locked.test_client()
    for word in (*["wrong"] * 4, WORD, *["wrong"] * 4, WORD):
        assert guess(client, word).status_code in (200, 401)
    assert guess(client, WORD).status_code == 200


def test_addresses_that_guessed_are_forgotten_in_the_end(monkeypatch):
    monkeypatch.setattr("webui.server.password.MAX_PLACES", 3)
    password = Password(WORD, cost=16)
    for number in range(10):
        assert password.login("wrong", f"10.0.0.{number}") is None
    assert len(password._failures) == 3


def test_after_logging_out_the_cookie_opens_nothing(locked):
    client, thief = locked.test_client(), locked.test_client()
    cookie = guess(client, WORD).headers["Set-Cookie"].partition(";")[0].partition("=")
    thief.set_cookie(cookie[0], cookie[2])
    assert thief.get("/api/status").status_code == 200
    assert client.post("/api/logout").json == {"logged_in": False}
    assert client.get("/api/status").status_code == 401 and thief.get("/api/status").status_code == 401
    assert client.post("/api/logout").status_code == 401


def test_logging_out_where_there_is_no_password_changes_nothing(client):
    assert client.post("/api/logout").json == {"logged_in": True}


def test_a_guess_costs_time_and_the_password_is_not_kept():
    password = Password(WORD)
    started = time.thread_time()
    assert password.login("wrong", "10.0.0.1") is None
    assert time.thread_time() - started > 0.02
    assert WORD not in repr(vars(password))


def test_without_a_password_the_login_is_not_needed(client):
    assert client.post("/api/login", json={"password": "x"}).json == {"logged_in": True}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])
def test_listening_beyond_loopback_needs_a_password(host):
    with pytest.raises(ValueError, match="needs --password"):
        Guard(host)
    Guard(host, Password(WORD, cost=16))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8", "[::1]"])
def test_loopback_needs_none(host):
    assert is_loopback(host)
    Guard(host)


@pytest.mark.parametrize("name", ["box.tailnet.ts.net", "BOX", "box.local.", " chat.example.org ", "fd7a::1"])
def test_a_name_that_was_allowed_answers_and_no_other(model, store, name):
    client = create_app(ModelSlot.holding(model), store, guard=Guard(names=[name])).test_client()
    bare = name.strip().lower().rstrip(".")
    host = f"[{bare}]" if ":" in bare else bare
    for shown in (host, host.upper(), f"{host}:443"):
        assert client.get("/api/status", headers={"Host": shown}).status_code == 200
    proxied = {"Host": host, "Origin": f"https://{host}"}
    assert client.post("/api/sessions", json={}, headers=proxied).status_code == 201
    assert client.get("/api/status", headers={"Host": f"evil.{host}"}).status_code == 403
    assert client.get("/api/status", headers={"Host": "evil.example"}).status_code == 403


@pytest.mark.parametrize("name", ["", "*", "a b", "http://box", "box:443", "box/x", "a@b"])
def test_what_is_no_name_is_refused_at_the_start(name):
    with pytest.raises(ValueError, match="--allow-host"):
        Guard(names=[name])


def test_beyond_loopback_addresses_answer_but_foreign_names_do_not(locked):
    client = locked.test_client()
    client.post("/api/login", json={"password": WORD})
    assert client.get("/api/status", headers={"Host": "192.168.1.7:5005"}).status_code != 403
    assert client.get("/api/status", headers={"Host": "evil.example"}).status_code == 403


def test_a_password_of_a_few_letters_is_refused():
    with pytest.raises(ValueError, match="at least 8"):
        Password("short")


def test_ids_of_one_kind_do_not_open_another(client):
    page = Page(client)
    assert client.get(f"/api/sessions/{MARLOW}").status_code == 404
    assert client.get(f"/api/bots/{page.session['id']}").status_code == 404
