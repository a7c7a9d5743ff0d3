"""Bring the files of the page's languages in line with its sources.

    python -m tools.languages

Adds each sentence that a file lacks, with an empty translation to be filled in (for a plural a list of one
form a place), takes out those that no source has any more, and sorts. Says what is left to translate.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from webui.languages import ENGLISH, FOLDER, LANGUAGES, ONE_FORM, Catalogue, catalogue_of, sentences
from webui.routes.settings import settings_sentences

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


def as_text(catalogue: Catalogue) -> str:
    """As the file has it: a sentence a line."""
    lines = (f"{json.dumps(key, ensure_ascii=False)}: {json.dumps(said, ensure_ascii=False)}"
             for key, said in catalogue.items())
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> int:
    """1 if something is left to translate."""
    wanted, left = all_sentences(), 0
    for language in LANGUAGES:
        if language == ENGLISH:
            continue
        path = FOLDER / f"{language}.json"
        before = catalogue_of(language) if path.exists() else {}
        catalogue = brought_in_line(before, wanted, language)
        path.write_text(as_text(catalogue), "utf-8")
        for key in missing(catalogue, wanted):
            print(f"{path.name}: {key}")
            left += 1
    print(f"{len(wanted)} sentences; {left} translations to be written.")
    return 1 if left else 0


if __name__ == "__main__":
    sys.exit(main())
