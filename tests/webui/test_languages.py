"""The page's languages: nothing is left untranslated, places are filled in, and each browser gets its own."""

import re

import pytest

from tests.helpers.page_texts import untranslated
from tools.languages import all_sentences, as_text, brought_in_line, missing, page_sources, renamed
from webui.languages import (
    COOKIE,
    ENGLISH,
    FOLDER,
    LANGUAGES,
    ONE_FORM,
    catalogue_of,
    direction,
    sentences,
    translated,
)
from webui.sentences import SERVER, server_catalogue

OTHERS = sorted(LANGUAGES.keys() - {ENGLISH})
TO_DO = "run python -m tools.languages, and fill in what it adds to webui/static/languages/"


@pytest.fixture(scope="module")
def wanted():
    return all_sentences()


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_of_the_page_is_translated_and_no_other_one(language, wanted):
    catalogue = catalogue_of(language)
    assert missing(catalogue, wanted) == [], TO_DO
    assert sorted(catalogue.keys() - wanted.keys()) == [], f"no source has these; {TO_DO}"
    text = (FOLDER / f"{language}.json").read_text("utf-8")
    assert text == as_text(brought_in_line(catalogue, wanted, language)), f"not sorted; {TO_DO}"


@pytest.mark.parametrize("language", OTHERS)
def test_translations_have_the_places_and_the_forms_of_the_english_sentence(language, wanted):
    for key, said in catalogue_of(language).items():
        assert isinstance(said, list) == wanted[key], key
        forms = said if wanted[key] else [said]
        assert not wanted[key] or len(forms) == (1 if language in ONE_FORM else 2), key
        places = set(re.findall(r"\{\w+\}", key))
        for form in forms:
            there = set(re.findall(r"\{\w+\}", form))
            assert there == places or (form is not forms[-1] and there < places), (key, form)
            assert form == form.strip() or key != key.strip(), (key, form)


NOT_SAID = {
    "de": r"\b(Ihnen|Ihren?|Voreinstellung)\b|Fassung|Kopfzeile|[Ss]ampling-Parameter",
    "es": r"\b(usted|ustedes)\b|sampler|[Ee]limin|[Pp]ensamiento|[Ee]ncabezado",
    "fr": r"\b(ton|tes|toi)\b|sampler|[Ss]ampling|[Kk]ernel| [;?!:»]|« ",
    "ja": r"返信|返事|人物設定|：|\}[件個文版]", "zh-Hans": r"词元|请求头|您|加载"}
"""Other words for what has one already, another way to speak to people, and signs that are set otherwise."""


@pytest.mark.parametrize("language", OTHERS)
def test_one_thing_has_one_name_and_people_are_spoken_to_in_one_way(language):
    for catalogue in (catalogue_of(language), server_catalogue(language)):
        for said in catalogue.values():
            for form in said if isinstance(said, list) else [said]:
                assert not re.search(NOT_SAID[language], form), form


def test_there_is_a_file_for_each_language_and_no_other_one():
    assert sorted(path.stem for path in FOLDER.glob("*.json")) == OTHERS
    assert sorted(path.stem for path in SERVER.iterdir()) == OTHERS


def test_sentences_are_given_as_literals():
    """Else neither the tool nor the server could find them."""
    for path in page_sources():
        code = re.sub(r"/\*\*.*?\*/|^ *//.*|(?<=[;,{]) // .*", "", path.read_text("utf-8"), flags=re.M | re.S)
        for call in re.finditer(r"(?<![\w$])(?<!(?<!\.\.)\.)(t|tn|tParts)\(\s*(.{0,200})", code, re.S):
            literal = r'"(?:[^"\\\n]|\\.)+"'
            given = re.match(rf"{literal},\s*{literal}" if call[1] == "tn" else literal, call[2])
            assert given, (path, call[0][:60])


def test_everything_that_people_read_in_the_page_can_be_translated():
    """A literal that is shown goes through t() of base/language.js; see CONTRIBUTING.md."""
    for path in page_sources():
        if path.suffix == ".js":
            assert untranslated(path.read_text("utf-8")) == [], f"{path.name}: wrap these in t()"


def test_texts_that_are_not_translated_are_found():
    source = """
      // toast("A comment")
      const LIST = [["Esc", t("Close"), "Shown, too"]];
      h("p", { class: "two classes", text: several ? "nobody" : t("Name") });
      setText(line, `Hello ${names.map((one) => `${one}!`).join(", ")} and ${last}`);
      if (event.key === "Enter" && !/"(text)"/.test("a,b")) throw new Error("No person reads it");
      toast(tn("one", "{count} bots", 2), { action: "undo" });
      button.dataset.name = "viewLeaf";
    """
    assert untranslated(source) == ["Shown, too", "nobody", "Hello {} and {}", "undo"]


def test_a_module_is_translated_by_hand():
    source = ('const a = [t("Stop"), t("Say \\"{what}\\"", { what }), tn("one bot", "{count} bots", n), '
              'art("Stop"),\n'
              '  t(\n    "New",\n  ), ...tParts("Open {it}", { it: b.t("Stop") })];\n')
    german = {"Stop": "Halt", 'Say "{what}"': "„{what}“ sagen", "{count} bots": ["ein Bot", "{count} Bots"],
              "Open {it}": "{it} öffnen"}
    assert translated(source, german) == (
        'const a = ["Halt", t("„{what}“ sagen", { what }), tn("ein Bot", "{count} Bots", n), '
        'art("Stop"),\n'
        '  "New", ...tParts("{it} öffnen", { it: b.t("Stop") })];\n')
    assert translated('tn("one bot", "{count} bots", n)', {"{count} bots": ["ボット{count}人"]}) == \
        'tn("", "ボット{count}人", n)'
    assert translated(source, {}).startswith('const a = ["Stop", t("Say \\"{what}\\"", { what }), tn("one')
    assert sentences(source) == {"Stop": False, 'Say "{what}"': False, "{count} bots": True, "New": False,
                                 "Open {it}": False}


def test_a_translation_outlives_another_name_of_a_place():
    before = {"{a} has {b}.": "{b}: {a}", "Old": "Alt", "{count} bots": ["{count} Bots"]}
    wanted = {"{size} has {b}.": False, "New": False}
    assert renamed(before, wanted) == {**before, "{size} has {b}.": "{b}: {size}"}


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
        static = re.search(r'src="(/static/[^/]+)/page.js"', page)[1]
        appearance = catalogue_of(language).get("Appearance", "Appearance")
        answer = client.get(f"{static}/asked.js")
        assert f'openDialog("{appearance}"' in answer.text and "immutable" in answer.headers["Cache-Control"]
        assert client.get(f"{static}/icon.svg").status_code == 200
    assert "languages/" not in page and client.get(f"{static}/languages/de.json").status_code == 404


def test_the_choice_is_kept_in_a_cookie_and_told(app):
    client = app.test_client()
    assert client.get("/api/language").json["language"] == ""
    assert client.post("/api/language", json={"language": "ja"}).json == {"language": "ja"}
    assert client.get("/api/language").json["language"] == "ja"
    assert '<html lang="ja"' in client.get("/", headers={"Accept-Language": "de"}).text
    refused = client.post("/api/language", json={"language": "tlh"})
    assert refused.status_code == 400 and "en, de" in refused.json["error"]["message"]
    assert client.post("/api/language", json={"language": ""}).json == {"language": ""}
    assert '<html lang="de"' in client.get("/", headers={"Accept-Language": "de"}).text


def test_the_labels_of_what_can_be_set_come_in_the_language_of_the_page(app):
    client = app.test_client()
    client.post("/api/presets", json={"name": "Precise writing", "sampling": {}})
    german = client.get("/api/settings", headers={"Accept-Language": "de"}).json
    english = client.get("/api/settings").json
    label = {spec["name"]: spec["label"] for spec in german["parameters"]}["max_new_tokens"]
    assert label == catalogue_of("de")["Most tokens in a reply"] != "Most tokens in a reply"
    assert english["turn_orders"][0]["label"] == "In turn"
    assert german["turn_orders"][0]["help"] == catalogue_of("de")[english["turn_orders"][0]["help"]]
    names = [preset["name"] for preset in german["presets"]]
    assert catalogue_of("de")["Precise"] in names and "Precise writing" in names  # that one is somebody's own


def test_what_is_written_from_right_to_left_is_known():
    assert {direction(code) for code in ("ar", "he", "fa-IR")} == {"rtl"}
    assert {direction(code) for code in LANGUAGES} == {"ltr"}
