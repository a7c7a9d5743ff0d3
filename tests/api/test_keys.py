"""Who may use the protocols: keys, the password, and pages of other origins."""

from __future__ import annotations

import subprocess
import sys

import openai
import pytest

from model import ModelSlot
from tests.helpers.api import Page
from tests.helpers.server_process import ROOT, Server
from webui import create_app
from webui.server.guard import LOGIN_BODY, Guard
from webui.server.password import Password
from webui.server.programs import Programs, protocol_of

KEY, OTHER, WORD = "k" * 24, "o" * 24, "correct horse"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
PATHS = ["/v1/models", "/v1/nothing"]
ELSEWHERE = "http://localhost:3000"


@pytest.fixture
def site(model, store):
    """create_app() with a guard made of these, as a client."""
    def make(host="127.0.0.1", password=None, keys=(), origins=()):
        guard = Guard(host, password, programs=Programs(keys, origins))
        return create_app(ModelSlot.holding(model), store, guard=guard).test_client()

    return make


def post(client, **headers):
    return client.post("/v1/chat/completions", json=HELLO, headers=headers)


def test_without_a_key_set_any_key_is_ignored(site):
    assert post(site(), Authorization="Bearer dummy").status_code == 200
    assert post(site(), **{"x-api-key": "dummy"}).status_code == 200
    assert post(site()).status_code == 200


def test_with_keys_set_one_of_them_is_needed_in_either_header(site):
    client = site(keys=[KEY, OTHER])
    for headers in ({"Authorization": f"Bearer {KEY}"}, {"Authorization": f"bearer {OTHER}"},
                    {"x-api-key": OTHER},
                    {"x-api-key": KEY, "Authorization": "Bearer wrong"}):
        assert post(client, **headers).status_code == 200
    for headers in ({}, {"Authorization": KEY}, {"Authorization": f"Basic {KEY}"}, {"x-api-key": KEY[:-1]},
                    {"x-api-key": ""}, {"Authorization": "Bearer "}, {"x-api-key": "ключ"}):
        refused = post(client, **headers)
        assert refused.status_code == 401
        assert refused.json["error"]["type"] == "authentication_error"
        assert refused.json["error"]["code"] == "invalid_api_key"
    assert [client.get(path).status_code for path in PATHS] == [401, 401]
    assert [client.get(path, headers={"x-api-key": KEY}).status_code for path in PATHS] == [200, 404]


def test_a_key_opens_the_protocols_and_not_the_page(site):
    client = site("0.0.0.0", Password(WORD, cost=16), keys=[KEY])
    assert post(client, **{"x-api-key": KEY}).status_code == 200
    assert client.get("/api/status", headers={"x-api-key": KEY}).status_code == 401
    assert client.get("/api/sessions", headers={"Authorization": f"Bearer {KEY}"}).status_code == 401


def test_on_loopback_the_page_needs_no_key(site):
    client = site(keys=[KEY])
    assert client.get("/api/status").status_code == 200 and Page(client).session


def test_a_password_closes_the_protocols_until_there_is_a_key(site):
    client = site("0.0.0.0", Password(WORD, cost=16))
    refused = post(client, Authorization="Bearer dummy")
    assert refused.status_code == 401 and "--api-key FILE" in refused.json["error"]["message"]
    client.post("/api/login", json={"password": WORD})
    assert post(client).status_code == 200  # the browser that is logged in


def test_what_a_program_with_a_key_sends_may_be_long():
    guard = Guard("0.0.0.0", Password(WORD, cost=16), programs=Programs([KEY]))
    assert guard.body_limit({"AUTHORIZATION": f"Bearer {KEY}"}, 80) > LOGIN_BODY
    assert guard.body_limit({"X_API_KEY": KEY}, 80) > LOGIN_BODY
    assert guard.body_limit({"X_API_KEY": OTHER}, 80) == LOGIN_BODY


def test_a_key_excuses_no_foreign_name_and_no_other_origin(site):
    client = site(keys=[KEY])
    for headers in ({"Host": "evil.example"}, {"Origin": "https://evil.example"},
                    {"Sec-Fetch-Site": "cross-site"}):
        assert post(client, **{"x-api-key": KEY, **headers}).status_code == 403


def test_a_page_of_an_allowed_origin_may_ask_and_read(site):
    client = site(keys=[KEY], origins=[ELSEWHERE])
    asks = {"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"}
    preflight = client.options("/v1/chat/completions", headers={
        **asks, "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, x-foo"})
    assert preflight.status_code == 200 and "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert preflight.headers["Access-Control-Allow-Headers"] == "authorization, x-foo"
    answer = post(client, **asks, **{"x-api-key": KEY})
    assert answer.status_code == 200 and answer.headers["Access-Control-Allow-Origin"] == ELSEWHERE
    assert answer.headers["Vary"] == "Origin"
    refused = post(client, **asks)
    assert refused.status_code == 401 and refused.headers["Access-Control-Allow-Origin"] == ELSEWHERE


def test_an_allowed_origin_reaches_nothing_of_the_pages(site):
    client = site(origins=[ELSEWHERE])
    for path in ("/api/status", "/api/sessions", "/"):
        answer = client.get(path, headers={"Origin": ELSEWHERE, "Sec-Fetch-Site": "cross-site"})
        assert answer.status_code == 403 and "Access-Control-Allow-Origin" not in answer.headers


def test_no_other_origin_is_let_in_beside_it(site):
    client = site(origins=[ELSEWHERE])
    for origin in ("http://localhost:3001", "https://localhost:3000", "null",
                   "http://localhost:3000.evil.example"):
        answer = post(client, Origin=origin)
        assert answer.status_code == 403 and "Access-Control-Allow-Origin" not in answer.headers
        preflight = client.options("/v1/models", headers={"Origin": origin,
                                                          "Access-Control-Request-Method": "GET"})
        assert preflight.status_code == 403
    assert post(site(origins=["*"]), Origin="https://any.example").status_code == 200


@pytest.mark.parametrize("origin", ["localhost:3000", "http://", "http://a/b", "null", "", "http://["])
def test_what_is_no_origin_is_refused_at_the_start(origin):
    with pytest.raises(ValueError, match="--allow-origin"):
        Programs(origins=[origin])


def test_a_key_that_can_be_guessed_is_refused_at_the_start():
    with pytest.raises(ValueError, match="shorter than 16 characters"):
        Programs([KEY, "short"])


@pytest.mark.parametrize(("path", "protocol"), [
    ("/v1", "openai"), ("/v1/models", "openai"), ("/v1/messages", "anthropic"), ("/v1/messages/count_tokens",
                                                                                 "anthropic"),
    ("/v1/messagesx", "openai"), ("/api/chat", "ollama"), ("/api/sessions", ""), ("/api/chats", ""), ("/",
                                                                                                      ""),
    ("/v12", ""), ("/static/v1/x", "")])
def test_paths_belong_to_a_protocol_or_to_the_page(path, protocol):
    assert protocol_of(path) == protocol


def test_app_py_reads_the_keys_from_a_file(tmp_path):
    (tmp_path / "keys").write_text(f"{KEY}\n\n{OTHER}\n", encoding="utf-8")
    with Server(tmp_path / "s", "--api-key", str(tmp_path / "keys"), "--allow-origin", ELSEWHERE) as server:
        for key in (KEY, OTHER):
            client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)
            assert client.models.list().data[0].id == "fake-1M"
        with pytest.raises(openai.AuthenticationError, match="missing or wrong"):
            client.with_options(api_key="dummy").models.list()


def test_no_protocol_is_imported_before_it_is_spoken():
    script = "import sys, app; print(sorted(name for name in sys.modules if name.startswith('webui.api.')))"
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (said.stdout.strip(), said.returncode) == ("['webui.api.routing']", 0)
