"""Questions about using Parlor itself. The sentences are in phrases/parlor.txt."""

from random import Random
from typing import Any

from tools.starter.corpus.phrases import Section, read_phrases
from tools.starter.corpus.skill import Skill


def asked(section: Section, frames: list[str]) -> list[str]:
    """Whole questions, and every "do" line ("edit a message") in all the frames that ask how it is done."""
    return section.get("ask", []) + [
        frame.replace("{do}", doing) for doing in section.get("do", []) for frame in frames
    ]


def build_skills() -> list[Skill]:
    sections = dict(read_phrases("parlor"))
    frames = sections.pop("frames")["ask"]

    def slots_of(section: Section) -> Any:
        def draw(_: Random) -> dict[str, Any]:
            return {"accept": tuple(section["accept"])}

        return draw

    return [
        Skill(name, slots_of(section), asked(section, frames), section["answer"], section.get("check", []))
        for name, section in sections.items()
    ]


SKILLS = build_skills()
