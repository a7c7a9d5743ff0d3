"""The token lens over HTTP: what is kept beside a reply, computed again, and how a reply forks at a token."""

from __future__ import annotations

import math
import random

import pytest

from model import LOGPROBS, ScoredToken
from tests.helpers.api import Page
from tests.helpers.failing_disk import FailingDisk
from webui.chat.reply_tokens import TokenRecorder, as_written
from webui.storage.store import Store
from webui.storage.token_files import MAX_SHARE, Alternative, ReplyToken, TokenFiles, pack, unpack

LONG = "tell me of the old lighthouse and of the sea at night when every ship is far away from the shore"


def tokens_of(page: Page, message: dict) -> list[dict]:
    response = page.client.get(f"{page.url}/messages/{message['id']}/tokens")
    assert response.status_code == 200, response.json
    return response.json["tokens"]


def refusal(page: Page, message_id: str) -> str:
    response = page.client.get(f"{page.url}/messages/{message_id}/tokens")
    assert response.status_code == 400
    return response.json["error"]["message"]


def fork(page: Page, message: dict, index: int, choice: str, expect: int = 202) -> dict:
    which = {"message": message["id"], "token": index, "choice": choice}
    body = page.send("POST", "/replies", expect, kind="fork", **which)
    return page.finish(body["reply"])[0] if expect == 202 else body["error"]


def test_the_tokens_of_a_reply_are_told_with_what_else_could_have_come(page, model):
    (reply,) = page.say("hello there")
    tokens = tokens_of(page, reply)
    assert "".join(token["text"] for token in tokens) == reply["text"] and not model.scored
    second = tokens[1]
    assert second["text"].startswith(" ") and second["entropy"] == pytest.approx(1.2, abs=0.05)
    assert math.exp(second["logprob"]) == pytest.approx(0.5, abs=0.01)
    assert [(other["text"], other["choosable"]) for other in second["others"]] == [
        (" alpha", True), (" beta", True), ("<end>", False)]
    assert [math.exp(other["logprob"]) for other in second["others"]] == pytest.approx([1 / 4, 1 / 8, 1 / 16],
                                                                                       abs=0.01)


def test_they_take_at_most_three_times_the_text_beside_the_session_and_outlive_a_restart(page, store):
    (reply,) = page.say(LONG)
    (path,) = (store.folder / "tokens").glob("*/*")
    assert path.parent.name == page.session["id"] and path.name == reply["id"]
    assert 0 < path.stat().st_size <= MAX_SHARE * len(reply["text"].encode())
    before = tokens_of(page, reply)
    store.close()
    again = Store(store.folder)
    kept = again.tokens.load(page.session["id"], reply["id"], reply["text"])
    again.close()
    assert [token.data.decode() for token in kept] == [token["text"] for token in before]
    assert [token.logprob for token in kept] == pytest.approx([one["logprob"] for one in before], abs=0.03)


def test_what_is_not_kept_is_computed_again_and_is_the_same(page, store, model):
    (reply,) = page.say(LONG)
    told = tokens_of(page, reply)
    page.client.application.extensions["parlor"].chat.lens.forget(page.session["id"], reply["id"])
    again = tokens_of(page, reply)
    assert again == told and len(model.scored) == 1
    assert model.scored[0]["reply"] == reply["text"] and model.scored[0]["messages"][-1].content == LONG
    assert store.tokens.load(page.session["id"], reply["id"], reply["text"])
    assert tokens_of(page, reply) == told and len(model.scored) == 1


def test_an_edited_text_has_tokens_of_its_own_and_what_is_deleted_has_none(page, store):
    (reply,) = page.say(LONG)
    page.send("PATCH", f"/messages/{reply['id']}", text="Something else entirely.")
    assert not list((store.folder / "tokens").glob("*/*"))
    assert "".join(token["text"] for token in tokens_of(page, reply)) == "Something else entirely."
    (other,) = page.say(LONG)
    assert (store.folder / "tokens" / page.session["id"] / other["id"]).exists()
    page.send("DELETE", f"/messages/{other['id']}")
    assert not (store.folder / "tokens" / page.session["id"] / other["id"]).exists()
    page.say(LONG)
    page.client.delete(page.url, json={})
    assert not (store.folder / "tokens" / page.session["id"]).exists()


def test_tokens_of_sessions_that_are_gone_are_removed_at_the_next_start(page, store):
    page.say(LONG)
    (store.folder / "tokens" / ("a" * 16)).mkdir()
    store.close()
    again = Store(store.folder)
    assert [path.name for path in (store.folder / "tokens").iterdir()] == [page.session["id"]]
    again.close()


def test_a_reply_forks_at_a_token_into_a_version_beside_it(page, model):
    (reply,) = page.say("hello there")
    page.say("and then?")
    tokens = tokens_of(page, reply)
    version = fork(page, reply, 2, b" beta".hex())
    beginning = tokens[0]["text"] + tokens[1]["text"] + " beta"
    assert version["text"] == beginning + " And so it goes on, a little further."
    assert version["parent"] == reply["parent"] and version["id"] != reply["id"]
    assert page.session["leaf"] == version["id"] and page.shown()[-1] == version["text"]
    assert model.started[-1]["prefix"] == tokens[0]["text"]
    assert model.started[-1]["reply_tokens"] == [tokens[1]["text"].encode(), b" beta"]
    told = tokens_of(page, version)
    assert "".join(token["text"] for token in told) == version["text"] and not model.scored
    assert told[2]["others"][0]["text"] == tokens[2]["text"]  # the way back
    assert {message["id"] for message in page.load()["session"]["messages"]} >= {reply["id"], version["id"]}
    back = fork(page, version, 2, told[2]["others"][0]["id"])
    assert back["text"].startswith("".join(token["text"] for token in tokens[:3]))


def test_a_reply_that_is_gone_on_with_has_the_tokens_of_both_parts(page, model):
    page.set(sampling={"max_new_tokens": 5})
    (first,) = page.say("tell me something")
    (whole,) = page.reply("continue")
    told = tokens_of(page, whole)
    assert whole["id"] == first["id"] and "".join(token["text"] for token in told) == whole["text"]
    assert len(told) == 10 and not model.scored


def test_thoughts_are_left_out_and_go_with_the_fork(page, model):
    (reply,) = page.say("think aloud")
    assert "".join(token["text"] for token in tokens_of(page, reply)) == "After thinking: yes."
    version = fork(page, reply, 0, b"alpha".hex())
    assert version["thinking"] == reply["thinking"] and version["text"].startswith("alpha And so")


def test_what_cannot_be_is_refused_in_a_sentence(page, model):
    (reply,) = page.say("hello there")
    user = page.session["messages"][-2]
    assert refusal(page, user["id"]) == "Only what a bot wrote has tokens to look at."
    (empty,) = page.say("empty please")
    assert refusal(page, empty["id"]) == "This reply has no text."
    for index, choice in ((0, b"gamma"), (9_000, b" alpha"), (1, b"<end>")):
        assert fork(page, reply, index, choice.hex(), 400)["message"] == "This token cannot be put there."
    assert fork(page, reply, 0, "zz", 400)["message"] == "choice is not in hex digits."
    assert page.client.get(f"{page.url}/messages/{'0' * 16}/tokens").status_code == 404


def test_a_model_that_does_not_tell_its_tokens_says_why_and_is_not_asked(page, model):
    model.cannot = {LOGPROBS: "This engine does not tell its tokens."}
    (reply,) = page.say(LONG)
    assert model.started[-1]["logprobs"] is None
    assert refusal(page, reply["id"]) == "This engine does not tell its tokens."


def test_nobody_waits_for_tokens_once_the_connection_is_closed(page, model):
    page.send("POST", "/messages", text="hello", reply=False)
    (reply,) = page.reply("next")
    page.send("PATCH", f"/messages/{reply['id']}", text="A text that is to be read again.")
    model.gate.clear()
    response = page.client.get(f"{page.url}/messages/{reply['id']}/tokens",
                               environ_overrides={"waitress.client_disconnected": lambda: True})
    model.gate.set()
    assert response.status_code == 499 and model.running == 0


def test_a_disk_that_refuses_the_tokens_takes_the_reply(tmp_path):
    files = TokenFiles(tmp_path / "tokens", FailingDisk(0, stays_broken=True))
    files.save("a" * 16, "b" * 16, some_tokens(100))
    assert files.load("a" * 16, "b" * 16, "anything") is None


def some_tokens(count: int, seed: int = 0) -> list[ReplyToken]:
    """Words of a small vocabulary, each with eight others."""
    random_ = random.Random(seed)
    words = [f" {random_.choice('bdfgklmnprst')}{random_.choice('aeiou')}{number}" for number in range(300)]

    def others() -> tuple[Alternative, ...]:
        shares = sorted((random_.random() ** 4 for _ in range(8)), reverse=True)
        return tuple(Alternative(word(), math.log(share / 2 + 1e-9)) for share in shares)

    def word() -> bytes:
        return random_.choice(words).encode()

    return [ReplyToken(word(), math.log(random_.random() + 1e-9), random_.random() * 9, others())
            for _ in range(count)]


@pytest.mark.parametrize("count", [30, 400])
def test_packed_tokens_are_small_and_true_to_a_hundredth_of_a_share(count):
    tokens = some_tokens(count)
    text = b"".join(token.data for token in tokens)
    data = pack(tokens)
    assert len(data) <= MAX_SHARE * len(text)
    found = unpack(data, text)
    assert [token.data for token in found] == [token.data for token in tokens]
    assert any(token.others for token in found)
    for one, other in zip(found, tokens, strict=True):
        assert math.exp(one.logprob) == pytest.approx(math.exp(other.logprob), abs=0.01)
        for near, far in zip(one.others, (o for o in other.others if o.data in {x.data for x in one.others}),
                             strict=False):
            assert near.data == far.data
            assert math.exp(near.logprob) == pytest.approx(math.exp(far.logprob), abs=0.01)


def test_what_is_all_but_impossible_or_certain_can_be_packed():
    text = b"a long enough text to keep something of it, and then some more of that"
    tokens = [ReplyToken(text, -math.inf, 1e9, (Alternative(b"no", -math.inf),)), ReplyToken(b".", 0.0, None)]
    first, second = unpack(pack(tokens), text + b".")
    assert first.logprob == pytest.approx(-30, abs=0.5) and first.others[0].logprob == first.logprob
    assert (second.logprob, second.entropy) == (0.0, None)


def test_a_file_that_is_damaged_cut_or_of_another_text_counts_as_none():
    tokens = some_tokens(50)
    text, data = b"".join(token.data for token in tokens), pack(tokens)
    assert unpack(data, text) and unpack(data, text + b".") is None
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 0x55
        found = unpack(bytes(damaged), text)
        assert found is None or b"".join(token.data for token in found) == text
        assert unpack(data[:at], text) is None


def test_a_character_of_several_tokens_is_told_when_it_is_whole(page, model):
    """Parts of a character have their bytes; a fork in its middle hands them on as they are."""
    recorder = TokenRecorder()
    for data in (b"  So", b" \xf0", b"\x9f\x8e", b"\x89", b"!\n\nUser:"):
        top = (ScoredToken(1, "", -1.0, b"\xf0\x9f"), ScoredToken(2, "", -2.0, b"</s>", is_control=True),
               ScoredToken(3, "", -math.inf, b"never"))
        recorder.take(ScoredToken(0, "", -0.5, data, top, 1.0))
    tokens = recorder.tokens_of("So \N{PARTY POPPER}!")
    assert [token.data for token in tokens] == [b"So", b" \xf0", b"\x9f\x8e", b"\x89", b"!"]
    assert [other.is_text for other in tokens[0].others] == [True, False]  # what is ruled out is none
    assert recorder.tokens_of("So what") is None
    assert as_written(tokens[:3]) == ("So", [b" \xf0", b"\x9f\x8e"])
    assert as_written(tokens[2:4]) == ("", [b"\x9f\x8e", b"\x89"])
    (reply,) = page.say("hello")
    lens = page.client.application.extensions["parlor"].chat.lens
    page.send("PATCH", f"/messages/{reply['id']}", text="So \N{PARTY POPPER}!")
    lens.keep(page.session["id"], page.session["messages"][-1], tokens)
    told = tokens_of(page, reply)
    assert [(token["text"], token.get("bytes")) for token in told] == [
        ("So", None), (" ", "20 F0"), ("", "9F 8E"), ("\N{PARTY POPPER}", "89"), ("!", None)]
    version = fork(page, reply, 2, b"\xf0\x9f".hex())
    assert model.started[-1]["prefix"] == "So"
    assert model.started[-1]["reply_tokens"] == [b" \xf0", b"\xf0\x9f"]
    assert version["text"].startswith("So \N{REPLACEMENT CHARACTER}")
