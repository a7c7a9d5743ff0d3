"""The page's languages: nothing is left untranslated, places are filled in, and each browser gets its own."""

import re

import pytest

from tools.languages import FOLDER, all_sentences, as_text, brought_in_line, missing, page_sources
from webui.languages import (
    COOKIE,
    ENGLISH,
    LANGUAGES,
    ONE_FORM,
    direction,
    read_catalogue,
    sentences,
    translated,
)

OTHERS = sorted(LANGUAGES.keys() - {ENGLISH})
TO_DO = "run python -m tools.languages, and fill in what it adds to webui/static/languages/"


@pytest.fixture(scope="module")
def wanted():
    return all_sentences()


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_of_the_page_is_translated_and_no_other_one(language, wanted):
    catalogue = read_catalogue(FOLDER, language)
    assert missing(catalogue, wanted) == [], TO_DO
    assert sorted(catalogue.keys() - wanted.keys()) == [], f"no source has these; {TO_DO}"
    text = (FOLDER / f"{language}.json").read_text("utf-8")
    assert text == as_text(brought_in_line(catalogue, wanted, language)), f"not sorted; {TO_DO}"


@pytest.mark.parametrize("language", OTHERS)
def test_translations_have_the_places_and_the_forms_of_the_english_sentence(language, wanted):
    for key, said in read_catalogue(FOLDER, language).items():
        assert isinstance(said, list) == wanted[key], key
        forms = said if wanted[key] else [said]
        assert not wanted[key] or len(forms) == (1 if language in ONE_FORM else 2), key
        places = set(re.findall(r"\{\w+\}", key))
        for form in forms:
            there = set(re.findall(r"\{\w+\}", form))
            assert there == places or (form is not forms[-1] and there == places - {"{count}"}), (key, form)
            assert form == form.strip() or key != key.strip(), (key, form)


def test_there_is_a_file_for_each_language_and_no_other_one():
    assert sorted(path.stem for path in FOLDER.iterdir()) == OTHERS


def test_sentences_are_given_as_literals():
    """Else neither the tool nor the server could find them."""
    for path in page_sources():
        code = re.sub(r"/\*\*.*?\*/|^ *//.*|(?<=[;,{]) // .*", "", path.read_text("utf-8"), flags=re.M | re.S)
        for call in re.finditer(r"(?<![\w.$])(t|tn|tParts)\(\s*(.{0,200})", code, re.S):
            literal = r'"(?:[^"\\\n]|\\.)+"'
            given = re.match(rf"{literal},\s*{literal}" if call[1] == "tn" else literal, call[2])
            assert given, (path, call[0][:60])


def test_a_module_is_translated_by_hand():
    source = ('const a = [t("Stop"), t("Say \\"{what}\\"", { what }), tn("one bot", "{count} bots", n), '
              'art("Stop"),\n'
              '  t(\n    "New",\n  ), tParts("Open {it}", { it: b.t("Stop") })];\n')
    german = {"Stop": "Halt", 'Say "{what}"': "„{what}“ sagen", "{count} bots": ["ein Bot", "{count} Bots"],
              "Open {it}": "{it} öffnen"}
    assert translated(source, german) == (
        'const a = ["Halt", t("„{what}“ sagen", { what }), tn("ein Bot", "{count} Bots", n), '
        'art("Stop"),\n'
        '  "New", tParts("{it} öffnen", { it: b.t("Stop") })];\n')
    assert translated('tn("one bot", "{count} bots", n)', {"{count} bots": ["ボット{count}人"]}) == \
        'tn("", "ボット{count}人", n)'
    assert translated(source, {}).startswith('const a = ["Stop", t("Say \\"{what}\\"", { what }), tn("one')
    assert sentences(source) == {"Stop": False, 'Say "{what}"': False, "{count} bots": True, "New": False,
                                 "Open {it}": False}


@pytest.mark.parametrize(("preferred", "chosen", "expected"), [
    ("", "", "en"), ("de-AT,en;q=0.8", "", "de"), ("sv,fr;q=0.9,de;q=0.5", "", "fr"), ("sv", "", "en"),
    ("zh-CN", "", "zh-Hans"), ("zh", "", "zh-Hans"), ("zh-TW,ja;q=0.5", "", "ja"), ("*", "", "en"),
    ("de", "es", "es"), ("de", "en", "en"), ("de", "klingon", "de"), ("\xff,;q=x", "", "en")])
def test_a_browser_gets_the_language_that_it_prefers_unless_one_was_chosen(app, preferred, chosen, expected):
    client = app.test_client()
    if chosen:
        client.set_cookie(COOKIE, chosen)
    answer = client.get("/", headers={"Accept-Language": preferred})
    assert f'<html lang="{expected}" dir="ltr">' in answer.text
    assert {"Accept-Language", "Cookie"} <= set(answer.vary)


def test_page_and_modules_are_in_one_language_and_english_is_nowhere_else(app):
    client = app.test_client()
    for language in LANGUAGES:
        page = client.get("/", headers={"Accept-Language": language}).text
        static = re.search(r'src="(/static/[^/]+)/early.js"', page)[1]
        appearance = read_catalogue(FOLDER, language).get("Appearance", "Appearance")
        answer = client.get(f"{static}/asked.js")
        assert f'openDialog("{appearance}"' in answer.text and "immutable" in answer.headers["Cache-Control"]
        assert client.get(f"{static}/icon.svg").status_code == 200
    assert "languages/" not in page and client.get(f"{static}/languages/de.json").status_code == 404


def test_the_choice_is_kept_in_a_cookie_and_told_with_the_settings(app):
    client = app.test_client()
    assert client.get("/api/settings").json["language"] == ""
    assert client.post("/api/language", json={"language": "ja"}).json == {"language": "ja"}
    assert client.get("/api/settings").json["language"] == "ja"
    assert '<html lang="ja"' in client.get("/", headers={"Accept-Language": "de"}).text
    refused = client.post("/api/language", json={"language": "tlh"})
    assert refused.status_code == 400 and "expected one of en, de" in refused.json["error"]["message"]
    assert client.post("/api/language", json={"language": ""}).json == {"language": ""}
    assert '<html lang="de"' in client.get("/", headers={"Accept-Language": "de"}).text


def test_what_is_written_from_right_to_left_is_known():
    assert {direction(code) for code in ("ar", "he", "fa-IR")} == {"rtl"}
    assert {direction(code) for code in LANGUAGES} == {"ltr"}
