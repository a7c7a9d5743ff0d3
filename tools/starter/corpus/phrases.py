"""Reads phrases/*.txt: the sentences of the corpus, one a line, in sections.

    [capital]
    ask: what is the capital of {country}?
    answer: It is {city}.
    check: for {country}, the capital would be which city?

`[a|b]` inside a line is a choice, `{slot}` is filled in. "check" lines are kept from training.
"""

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "phrases"
Section = dict[str, list[str]]


@cache
def read_phrases(name: str) -> dict[str, Section]:
    """{section: {key: [lines]}} of phrases/<name>.txt. Raises ValueError naming the line that is wrong."""
    sections: dict[str, Section] = {}
    section: Section | None = None
    for number, line in enumerate((FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]") and ":" not in line:
            section = sections.setdefault(line[1:-1], {})
            continue
        key, colon, text = line.partition(": ")
        if section is None or not colon or not key.isalpha():
            raise ValueError(
                f"phrases/{name}.txt line {number}: expected '[section]' or 'key: text', found {line!r}"
            )
        section.setdefault(key, []).append(text)
    return sections
