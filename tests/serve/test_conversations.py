"""Which replica a request goes to."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import Future
from types import SimpleNamespace

import pytest

pytest.importorskip("ray.serve", reason="Ray Serve is not installed: pip install -r requirements-serve.txt")

from serve.conversations import MAX_REMEMBERED, ConversationRouter, conversation_of
from tests.helpers.coroutines import finished

A, B, C = (SimpleNamespace(replica_id=name) for name in "ABC")
RULES = {"role": "system", "content": "You are Marlow."}


def turn(role, content):
    return {"role": role, "content": content}


def said(*turns, **fields):
    return conversation_of({}, json.dumps({"messages": [RULES, *turns], **fields}).encode())


@pytest.fixture
def router():
    router = object.__new__(ConversationRouter)
    router.initialize_state()
    return router


def request(conversation, number=0):
    return SimpleNamespace(metadata=SimpleNamespace(session_id=conversation, internal_request_id=str(number)),
                           routing_context=SimpleNamespace(should_backoff=False), future=Future())


def chosen(router, asked, *replicas):
    """The order in which the replicas come into question."""
    ranks = finished(router.choose_replicas(list(replicas), asked))
    assert asked.routing_context.should_backoff  # else Ray would ask again without a pause
    return "".join(replica.replica_id for rank in ranks for replica in rank)


def answered(router, conversation, *replicas):
    """The same, of a request that is answered before the next one comes."""
    order = chosen(router, request(conversation), *replicas)
    router.on_request_completed(order[0], "0")
    return order


def test_a_conversation_stays_where_it_began_and_a_new_one_begins_where_there_are_fewest(router):
    assert answered(router, "one", A, B) == "AB"
    assert answered(router, "two", A, B) == "BA"
    assert answered(router, "three", A, B) == "AB"
    assert answered(router, "two", A, B) == "BA"
    assert answered(router, "one", A, B, C) == "ACB"
    assert answered(router, "four", A, B, C) == "CBA"
    assert answered(router, "", A, B, C) == "BCA"  # of no conversation: counted nowhere
    assert answered(router, "", A, B, C) == "BCA"


def test_where_fewest_requests_are_under_way_counts_first(router):
    """Chosen at once, before any replica has said a word."""
    first = [chosen(router, request(f"{number}", number), A, B)[0] for number in range(64)]
    assert Counter(first) == {"A": 32, "B": 32}
    for number in range(0, 64, 2):
        router.on_request_completed("A", str(number))
    more = [chosen(router, request(f"new {number}", f"new {number}"), A, B) for number in range(32)]
    assert more == ["AB"] * 32
    assert chosen(router, request("1", "again"), A, B) == "BA"  # but a conversation stays


def test_a_request_that_is_given_up_before_it_is_sent_is_under_way_no_more(router):
    given_up = request("one", 1)
    assert chosen(router, given_up, A, B) == "AB" and chosen(router, request("two", 2), A, B) == "BA"
    given_up.future.cancel()
    assert chosen(router, request("three", 3), A, B) == "AB"


def test_a_request_that_a_full_replica_refuses_is_counted_where_it_went(router):
    asked = request("one", 1)
    assert chosen(router, asked, A, B) == "AB"
    router.on_request_routed(asked, "B", None)
    assert chosen(router, request("one", 2), A, B) == "BA"
    assert chosen(router, request("two", 3), A, B) == "AB"


def test_a_conversation_whose_replica_is_gone_moves_once(router):
    answered(router, "one", A, B)
    assert answered(router, "one", B, C) == "BC"
    assert answered(router, "one", B, C) == "BC"
    assert router._counts == {"A": 0, "B": 1}


def test_the_conversations_that_are_longest_silent_are_forgotten(router):
    for number in range(MAX_REMEMBERED + 5):
        router.on_request_routed(request(str(number)), "A", None)
    assert len(router._homes) == MAX_REMEMBERED == router._counts["A"]
    assert "4" not in router._homes and "5" in router._homes


def test_turns_of_one_conversation_have_something_in_common_and_others_not():
    first = said(turn("user", "Hello"))
    assert said(turn("user", "Hello"), turn("assistant", "Hi."), turn("user", "Who are you?")) == first
    assert said(turn("user", "Hello"), temperature=0) == first
    assert len({first, said(turn("user", "Good day")), said(turn("user", "Hello"), system="Be short."),
                conversation_of({}, json.dumps({"messages": [turn("user", "Hello")]}).encode())}) == 4


def test_other_protocols_have_conversations_too():
    for name in ("input", "prompt"):
        text = {name: "x" * 300}, {name: "x" * 300 + "and more"}, {name: "y" * 300}
        first, second, other = (conversation_of({}, json.dumps(body).encode()) for body in text)
        assert first == second != other
    texts = [{"prompt": ["x" * 300]}, {"prompt": ["x" * 400, "z"]}, {"prompt": list(range(300))},
             {"prompt": list(range(400))}, {"prompt": list(range(1, 300))}]
    found = [conversation_of({}, json.dumps(body).encode()) for body in texts]
    assert found[0] == found[1] != found[2] == found[3] != found[4]


def test_the_id_that_a_program_gives_is_what_counts():
    assert conversation_of({"x-session-id": "mine"}, b"{}") == "mine"


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"{}", b"[" * 100_000, b'{"messages": []}',
                                  b'{"messages": 5}', b'"text"', b'{"messages": [5, null]}'])
def test_what_is_no_conversation_is_left_to_the_replica_to_refuse(body):
    assert isinstance(conversation_of({}, body), str)
