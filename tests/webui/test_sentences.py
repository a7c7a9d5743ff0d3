"""What the server says to people: found in its sources, translated, and told in the language of each page."""

import pytest

from tests.helpers.api import parse_events
from tools.languages import as_text, brought_in_line, missing
from tools.server_sentences import sentences_in, server_sentences
from webui.chat.event_log import EventLog
from webui.languages import ENGLISH, LANGUAGES
from webui.routes.replies import event_chunks
from webui.sentences import MAX_LENGTH, PLACE, SERVER, Sentences, sentences_of, server_catalogue, told
from webui.storage.schema import USER, new_message, new_session

OTHERS = sorted(LANGUAGES.keys() - {ENGLISH})
TO_DO = "run python -m tools.languages, and fill in what it adds to webui/static/languages/server/"
HOSTILE = ["{name}", "{0}", "%s", "\x00", "\u202e", "<script>", "\n\n", "{" * 500, "\\1",
           "}{", "\ud800", "."]
GERMAN = {"Accept-Language": "de"}


@pytest.fixture(scope="module")
def wanted():
    return dict.fromkeys(server_sentences(), False)


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_of_the_server_is_translated_and_no_other_one(language, wanted):
    catalogue = server_catalogue(language)
    assert missing(catalogue, wanted) == [], TO_DO
    assert sorted(catalogue.keys() - wanted.keys()) == [], f"no source has these; {TO_DO}"
    text = (SERVER / f"{language}.json").read_text("utf-8")
    assert text == as_text(brought_in_line(catalogue, wanted, language)), f"not sorted; {TO_DO}"


@pytest.mark.parametrize("language", OTHERS)
def test_a_translation_has_each_place_of_its_sentence(language, wanted):
    for key, said in server_catalogue(language).items():
        assert sorted(PLACE.findall(said)) == sorted(PLACE.findall(key)), (key, said)


def test_every_sentence_is_known_by_what_stands_in_it(wanted):
    """With each place filled in, it comes out as its own translation, not as one that it resembles."""
    words, catalogue = sentences_of("ja"), server_catalogue("ja")
    alike = {}
    for key, said in catalogue.items():
        alike.setdefault(PLACE.sub("{}", key).rstrip("."), set()).add(PLACE.sub("x", said).rstrip("。."))
    for key in catalogue:
        text = words.told(PLACE.sub("x", key))
        assert text.rstrip("。.") in alike[PLACE.sub("{}", key).rstrip(".")], (key, text)


def test_a_sentence_is_found_in_its_form_by_hand():
    words = Sentences({"{name} has {size} of {most}.": "{most}: {size} ({name})",
                       "Stop it first.": "Erst anhalten.", "not JSON": "kein JSON", "bot": "Bot",
                       "{file} is damaged: {error}": "{file} ist kaputt: {error}",
                       "There is no {what}.": "Das fehlt: {what}."}, "de")
    assert words.told("Ada has 1,234 of 2.5 GiB.") == "2,5 GiB: 1.234 (Ada)"
    assert words.told("Ada has 3 of 4. Stop it first.") == "4: 3 (Ada) Erst anhalten."
    assert words.told("Nobody knows. Stop it first.") == "Nobody knows. Erst anhalten."
    assert words.told("a.json is damaged: not JSON") == "a.json ist kaputt: kein JSON"
    assert words.told("not JSON.") == "kein JSON."
    assert words.told("x is damaged: Ada has 3 of 4.") == "x ist kaputt: 4: 3 (Ada)"
    assert words.told("There is no bot.") == "Das fehlt: Bot."
    assert words.told("Stop it first.\n") == "Stop it first.\n" and words.told("") == ""
    assert words.told("{name} has {size} of {what}.") == "{what}: {size} ({name})"


@pytest.mark.parametrize("language", OTHERS)
def test_hostile_texts_come_back_whole(language):
    words = sentences_of(language)
    for text in [*HOSTILE, "A. " * 4_000, " is ; expected " * 300, "a" * (MAX_LENGTH + 1)]:
        assert isinstance(words.told(text), str)
        assert text in words.told(f"{text} is still writing in this session.")


@pytest.mark.parametrize(("text", "german"), [
    ("This session cannot be saved: the character has 60,000 characters; expected 0 to 50,000.",
     "Kann nicht gespeichert werden (Sitzung): der Charakter hat 60.000 Zeichen; erwartet werden 0 bis "
     "50.000."),
    ("The engine vLLM (127.0.0.1:8000) cannot be reached: Connection refused. Is it running?",
     "Die Engine vLLM (127.0.0.1:8000) ist nicht zu erreichen: Connection refused. Läuft sie?"),
    ("The prompt needs 5,000 tokens even without the messages that can be left out; the context holds 2,048, "
     "the reply included. Shorten the last message or the system prompt, unpin messages, or load the model "
     "with a larger --max-seq-len.",
     "Der Prompt braucht 5.000 Token auch ohne die Nachrichten, die wegfallen können; der Kontext fasst "
     "2.048, die Antwort eingeschlossen. Kürze die letzte Nachricht oder den Systemprompt, löse angeheftete "
     "Nachrichten, oder lade das Modell mit größerem --max-seq-len.")])
def test_sentences_and_words_of_ours_in_a_sentence_are_told_too(text, german):
    assert sentences_of("de").told(text) == german


def test_answers_are_translated_where_the_server_speaks_and_nowhere_else():
    answer = {"error": {"message": "No model is loaded.", "code": "no_model"}, "text": "No model is loaded.",
              "messages": [{"text": "The message is empty.", "error": "The message is empty."}],
              "cannot": {"rank": "There is nothing to summarize."}, "message": {"id": "1", "error": ""},
              "left": ["example dialogue", 3], "name": "bot", "advice": {"temperature": 1}}
    words = server_catalogue("de")
    assert told(answer, "de") == {
        **answer, "error": {"message": words["No model is loaded."], "code": "no_model"},
        "messages": [{"text": "The message is empty.", "error": words["The message is empty."]}],
        "cannot": {"rank": words["There is nothing to summarize."]}, "left": [words["example dialogue"], 3]}
    assert told(answer, ENGLISH) is answer


def test_the_page_hears_in_its_language_and_programs_in_english(app):
    client = app.test_client()
    german = client.get("/api/sessions/0123456789abcdef0123456789abcdef", headers=GERMAN)
    words = server_catalogue("de")
    assert german.status_code == 404
    assert german.json["error"]["message"] == words["There is no such {kind_name}."].replace(
        "{kind_name}", words["session"])
    refused = client.post("/v1/chat/completions", json={"model": "x"}, headers=GERMAN)
    assert refused.status_code == 400 and "messages" in refused.json["error"]["message"]
    assert refused.json == client.post("/v1/chat/completions", json={"model": "x"}).json


def test_what_was_stored_is_said_in_the_language_of_who_reads_it(app):
    client = app.test_client()
    reply = new_message("0" * 16, "Ada", "Well", None) | {"error": "The model ended without saying why."}
    said = new_message(USER, "", "No model is loaded.", None)
    reply["parent"] = said["id"]
    session = {**new_session([], "One"), "messages": [said, reply], "leaf": reply["id"]}
    data = {"parlor_export": 1, "session": session, "bots": []}
    session = client.post("/api/sessions/import", json={"data": data}).json["session"]
    assert session["messages"][1]["error"] == "The model ended without saying why."
    shown = client.get(f"/api/sessions/{session['id']}", headers=GERMAN).json["session"]["messages"]
    assert shown[1]["error"] == server_catalogue("de")["The model ended without saying why."]
    assert shown[0]["text"] == "No model is loaded." and "error" not in shown[0]


def test_events_that_were_logged_once_are_said_to_each_tab_in_its_language():
    log = EventLog()
    sentence = "The model wrote nothing."
    log.append("text", {"text": sentence})
    log.end("error", {"message": sentence, "partial": {"error": sentence}})
    for language in LANGUAGES:
        text, end = parse_events(b"".join(event_chunks({"": log}, {"": 0}, language)))
        expected = server_catalogue(language).get(sentence, sentence)
        assert text.data == {"text": sentence}
        assert end.data == {"message": expected, "partial": {"error": expected}}


def test_the_sentences_of_a_module_are_found_by_hand():
    source = '''
"""A docstring. It is not said."""
def f(self, text, index, all_models):
    """Nor is this."""
    log.info("Not this one.")
    if index:
        raise Bad(f"The text has {len(text):,} of {self.kind.name!r} {text['file']}", hint="Try again.")
    if text:
        raise TypeError("for a programmer only")
    check_id(text, "session")
    return f"There {index + 1} is{' and others' if all_models else ''}." or "key name" or "One thing."
'''
    found = [text for text, is_said in sentences_in(source) if is_said]
    assert sorted(found) == ["One thing.", "The text has {text} of {kind_name} {text_file}",
                             "There {index} is{all_models}.", "Try again.", "session"]
