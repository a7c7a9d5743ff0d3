"""What a conversation costs is told beside the session, never in the way of reading it."""

from __future__ import annotations

import threading

import pytest

from tests.helpers.api import Page, wait_until
from webui.chat import context_cost
from webui.chat.context_cost import ContextCosts


class Panic(BaseException):
    """As PyO3's PanicException, which is no Exception."""


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(context_cost, "WAIT_SECONDS", 0.02)


@pytest.mark.parametrize(("error", "sentence"), [
    (ValueError("the template does not end"), "cannot be told: the template does not end"),
    (RuntimeError("secret"), "log says more"), (StopIteration(), "log says more"),
    (Panic("secret"), "log says more")])
def test_a_model_that_cannot_count_a_conversation_keeps_nobody_from_reading_it(page, model, error, sentence):
    def fit(*_arguments, **_options):
        raise error

    page.send("POST", "/messages", text="hello", reply=False)
    model.fit, fits = fit, model.fit
    body = page.client.get(page.url)
    assert body.status_code == 200 and len(body.json["session"]["messages"]) == 1
    assert sentence in body.json["context"]["problem"] and "secret" not in body.text
    assert body.json["context"]["prompt_tokens"] is None and body.json["context"]["max_seq_len"] == 2048
    model.fit = fits
    page.say("more")  # another revision is counted anew
    assert page.load()["context"]["prompt_tokens"] > 0


def test_a_conversation_that_is_counted_for_ever_stalls_neither_itself_nor_another(client, model, impatient):
    stuck, fits = Page(client), model.fit
    free = threading.Event()

    def fit(messages, *arguments, **options):
        if any("stuck" in message.content for message in messages):
            free.wait(60)
        return fits(messages, *arguments, **options)

    stuck.send("POST", "/messages", text="stuck", reply=False)
    model.fit = fit
    for _ in range(12):  # more than may be counted at once
        stuck.set(user_name="Ann")
        assert stuck.load()["context"]["problem"] == context_cost.LATER
    other = Page(client)
    wait_until(lambda: other.load()["context"]["prompt_tokens"])  # it may take more than one moment
    free.set()
    wait_until(lambda: stuck.load()["context"].get("problem") is None)
    assert stuck.load()["context"]["prompt_tokens"] > 0


def test_the_cost_of_a_revision_is_computed_once_for_each_model(impatient):
    asked, models = [], []
    costs = ContextCosts(lambda session: asked.append(session["revision"]) or {"prompt_tokens": 5},
                         lambda: len(models))
    session = {"id": "0" * 16, "revision": 1}
    wait_until(lambda: costs.of(session) == {"prompt_tokens": 5})
    for _ in range(3):
        costs.of(session)
    wait_until(lambda: costs.of({**session, "revision": 2}) == {"prompt_tokens": 5})
    assert asked == [1, 2]
    models.append("another one")
    wait_until(lambda: costs.of({**session, "revision": 2}) == {"prompt_tokens": 5})
    assert asked == [1, 2, 2]


def test_too_many_that_are_counted_at_once_are_no_more_threads(impatient):
    free, running = threading.Event(), []
    costs = ContextCosts(lambda session: running.append(session) or {"waited": free.wait(60)}, lambda: 0)
    for number in range(3 * context_cost.MAX_RUNNING):
        assert costs.of({"id": f"{number:016x}", "revision": 1}) == {"problem": context_cost.LATER}
    assert len(running) <= context_cost.MAX_RUNNING
    free.set()
    wait_until(lambda: costs.of({"id": "f" * 16, "revision": 1}) == {"waited": True})
