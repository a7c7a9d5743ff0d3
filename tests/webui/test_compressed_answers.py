"""Answers in JSON are compressed where that helps, and say the same."""

import gzip
import json

import pytest

from webui.server.compressing import LEAST_BYTES, MOST_BYTES_AT_HOME

ZIPPED = {"Accept-Encoding": "gzip, deflate"}
FAR = {"REMOTE_ADDR": "192.168.1.7"}


def test_an_answer_is_the_same_compressed_and_takes_a_third(client):
    plain = client.get("/api/settings")
    assert plain.content_encoding is None and len(plain.data) > LEAST_BYTES
    zipped = client.get("/api/settings", headers=ZIPPED)
    assert zipped.content_encoding == "gzip"
    assert zipped.content_length == len(zipped.data) < len(plain.data) / 3
    assert json.loads(gzip.decompress(zipped.data)) == plain.json
    for answer in (plain, zipped):  # for caches between
        assert "Accept-Encoding" in answer.vary


@pytest.mark.parametrize("accepted", ["", "identity", "br", "gzip;q=0"])
def test_who_cannot_read_it_gets_it_as_it_is(client, accepted):
    assert client.get("/api/settings", headers={"Accept-Encoding": accepted}).content_encoding is None


def test_short_answers_and_errors_are_left_alone(client):
    for path in ("/api/sessions", "/api/sessions/0000000000000000"):
        answer = client.get(path, headers=ZIPPED)
        assert len(answer.data) < LEAST_BYTES and answer.content_encoding is None


def test_a_long_answer_is_compressed_for_other_machines_alone(page):
    page.set(system_prompt="A long story. " * (MOST_BYTES_AT_HOME // 20))
    page.set(note={"text": "Another one. " * (MOST_BYTES_AT_HOME // 40), "depth": 4})
    plain = page.client.get(page.url)
    assert len(plain.data) > MOST_BYTES_AT_HOME
    assert page.client.get(page.url, headers=ZIPPED).content_encoding is None
    zipped = page.client.get(page.url, headers=ZIPPED, environ_overrides=FAR)
    assert zipped.content_encoding == "gzip" and len(zipped.data) < MOST_BYTES_AT_HOME / 20
    assert json.loads(gzip.decompress(zipped.data))["session"] == plain.json["session"]


def test_events_are_never_compressed(page):
    reply = page.send("POST", "/messages", text="hello")["reply"]
    answer = page.client.get(f"/api/replies/{reply['reply_id']}/events", headers=ZIPPED)
    assert answer.mimetype == "text/event-stream" and answer.content_encoding is None
    assert b"event: " in answer.data
