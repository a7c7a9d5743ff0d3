"""Bring the files of the page's languages in line with the sources of the page and of the server.

    python -m tools.languages

Adds each sentence that a file lacks, with an empty translation to be filled in (for a plural a list of one
form a place), takes out those that no source has any more, and sorts; a translation stays where only the name
of a place is another one. Says what is left to translate.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tools.server_sentences import server_sentences
from webui.languages import ENGLISH, FOLDER, LANGUAGES, ONE_FORM, Catalogue, sentences
from webui.routes.settings import settings_sentences
from webui.sentences import PLACE, SERVER

WEBUI = Path(__file__).resolve().parent.parent / "webui"


def page_sources() -> list[Path]:
    """Every file of ours that may hold sentences of the page."""
    static = WEBUI / "static"
    modules = [path for path in static.rglob("*.js") if static / "vendor" not in path.parents]
    return sorted([*modules, *(WEBUI / "templates").glob("*.html")])


def all_sentences() -> dict[str, bool]:
    """Of every source, and of the settings that the server offers: whether it is a plural, by its key."""
    found = dict.fromkeys(settings_sentences(), False)
    for path in page_sources():
        for key, is_plural in sentences(path.read_text("utf-8")).items():
            if found.setdefault(key, is_plural) != is_plural:
                raise ValueError(f"{path}: {key!r} is a plural of tn() and a sentence of t(); "
                                 "word one of them otherwise.")
    return found


def missing(catalogue: Catalogue, wanted: dict[str, bool]) -> list[str]:
    """The keys that have no translation."""
    return sorted(key for key in wanted if not catalogue.get(key) or not all(catalogue[key]))


def brought_in_line(catalogue: Catalogue, wanted: dict[str, bool], language: str) -> Catalogue:
    """With exactly the keys of the sources, sorted, those that are new with empty translations."""
    forms = 1 if language in ONE_FORM else 2
    kept = {key: said for key, said in catalogue.items() if isinstance(said, list) == wanted.get(key)}
    return {key: kept.get(key) or ([""] * forms if wanted[key] else "") for key in sorted(wanted)}


def renamed(catalogue: Catalogue, wanted: dict[str, bool]) -> Catalogue:
    """With sentences that are gone under keys that are new, where only the names of their places differ."""
    gone = {PLACE.sub("{}", key): key for key in catalogue.keys() - wanted.keys()}
    kept = dict(catalogue)
    for key in wanted.keys() - catalogue.keys():
        if (old := gone.get(PLACE.sub("{}", key))) and isinstance(said := catalogue[old], str):
            names = dict(zip(PLACE.findall(old), PLACE.findall(key), strict=True))
            kept[key] = PLACE.sub(lambda place, names=names: f"{{{names[place[1]]}}}", said)
    return kept


def as_text(catalogue: Catalogue) -> str:
    """As the file has it: a sentence a line."""
    lines = (f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(said, ensure_ascii=False)}"
             for key, said in catalogue.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    """1 if something is left to translate."""
    left = 0
    for folder, wanted in ((FOLDER, all_sentences()), (SERVER, dict.fromkeys(server_sentences(), False))):
        for language in LANGUAGES:
            if language == ENGLISH:
                continue
            path = folder / f"{language}.json"
            before = json.loads(path.read_text("utf-8")) if path.exists() else {}
            catalogue = brought_in_line(renamed(before, wanted), wanted, language)
            path.write_text(as_text(catalogue), "utf-8")
            for key in missing(catalogue, wanted):
                print(f"{path.relative_to(FOLDER)}: {key}")
                left += 1
        print(f"{folder.name}: {len(wanted)} sentences.")
    print(f"{left} translations to be written.")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
