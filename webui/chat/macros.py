"""The words in double braces that character cards use, such as {{char}} and {{random:a,b}}, filled in.

https://github.com/kwaroran/character-card-spec-v3/blob/077e65afb059ebc443e638a04ed6471a386fbda8/SPEC_V3.md
and what SillyTavern has beyond it: https://docs.sillytavern.app/usage/core-concepts/macros/

The same text comes out each time it is asked for: chance is drawn from what the text belongs to, and the hour
is that of something that was said. So a prompt begins as the one before it did, whose beginning the model has
read already, and a reply can be generated once more. Pure functions; in linear time, whatever the text is.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

MAX_DICE, MAX_SIDES = 100, 1_000_000
MAX_NESTED = 16
_BRACES = re.compile(r"(\{\{|\}\})")
_MACRO = re.compile(r"\s*(//|[A-Za-z_]+)\s*(::|:|\s|$)?(.*)", re.DOTALL)
_DICE = re.compile(r"\s*(\d{0,3})[dD](\d{1,7})\s*([+-]\s*\d{1,6})?\s*|\s*(\d{1,7})\s*")
_COMMA = re.compile(r"(?<!\\),")
_ANGLES = re.compile(r"<(char|bot|user)>", re.IGNORECASE)
_TRIM = "\x00trim\x00"
_TRIMMED = re.compile(rf"\n*{_TRIM}\n*")


@dataclass(frozen=True)
class Macros:
    """What is filled in for one speaker.

    char, user  names
    lasting     what chance hangs on: the conversation; alone for {{pick}} and for what stands before that
    passing     what it hangs on besides, for what stands behind it: the message that is answered
    moment      seconds since 1970 that {{date}} and {{time}} tell, in the server's time zone
    """

    char: str
    user: str
    lasting: str = ""
    passing: str = ""
    moment: float | None = None

    def at(self, passing: str, moment: float) -> Macros:
        """For a text that stands behind the message `passing`, which was said at `moment`."""
        return replace(self, passing=passing, moment=moment)

    def fill(self, text: str, hidden: bool = False) -> str:
        """`text` with all that is known filled in; what is not known stays, braces and all.

        hidden  with {{hidden_key:...}}, which is for finding entries of a lore book and is in no prompt
        """
        if "{{" not in text:
            return text
        open_: list[list[str]] = [[]]
        count = 0
        for part in _BRACES.split(text):
            if part == "{{" and len(open_) <= MAX_NESTED:
                open_.append([])
            elif part == "}}" and len(open_) > 1:
                inner = "".join(open_.pop())
                open_[-1].append(self._one(inner, count, hidden))
                count += 1
            else:
                open_[-1].append(part)
        filled = "{{".join("".join(parts) for parts in open_)
        return _TRIMMED.sub("", filled) if _TRIM in filled else filled

    def _one(self, inner: str, count: int, hidden: bool) -> str:
        whole = f"{{{{{inner}}}}}"
        found = _MACRO.fullmatch(inner)
        if found is None:
            return whole
        name, between, given = found[1].lower(), found[2] or "", found[3]
        if name in ("//", "comment", "noop", "original"):
            return ""
        if name == "hidden_key":
            return given if hidden else ""
        plain = {"char": self.char, "bot": self.char, "user": self.user, "newline": "\n", "trim": _TRIM}
        if not given.strip() and name in plain:
            return plain[name]
        if not given.strip() and name in _CLOCK and self.moment is not None:
            return _CLOCK[name](time.localtime(self.moment))
        if name == "reverse" and between in (":", "::"):
            return given[::-1]
        if name in ("random", "pick") and between in (":", "::"):
            choices = given.split("::") if "::" in given or between == "::" else _COMMA.split(given)
            if len(choices) == 1:
                choices = _COMMA.split(given)
            chosen = choices[self._chance(name, inner, count, len(choices))]
            return chosen.replace("\\,", ",").strip()
        if name == "roll":
            return self._rolled(given, inner, count) or whole
        return whole

    def _rolled(self, dice: str, inner: str, count: int) -> str:
        """The sum of dice such as 2d6+1, d20 or 6; "" for what is none."""
        found = _DICE.fullmatch(dice)
        if found is None:
            return ""
        number, sides, more = int(found[1] or 1), int(found[2] or found[4]), found[3]
        if not 1 <= number <= MAX_DICE or not 1 <= sides <= MAX_SIDES:
            return ""
        total = sum(self._chance("roll", f"{inner}\0{die}", count, sides) + 1 for die in range(number))
        return str(total + (int(more.replace(" ", "")) if more else 0))

    def _chance(self, name: str, inner: str, count: int, most: int) -> int:
        """A number from 0 to most - 1, the same for the same place of the same text."""
        where = self.lasting if name == "pick" else f"{self.lasting}\0{self.passing}"
        digest = hashlib.sha256(f"{where}\0{inner}\0{count}".encode("utf-8", "replace")).digest()
        return int.from_bytes(digest[:8], "little") % most


_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
           "November", "December")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_CLOCK: dict[str, Callable[[time.struct_time], str]] = {
    "date": lambda at: f"{_MONTHS[at.tm_mon - 1]} {at.tm_mday}, {at.tm_year}",
    "time": lambda at: f"{(at.tm_hour - 1) % 12 + 1}:{at.tm_min:02} {'AM' if at.tm_hour < 12 else 'PM'}",
    "weekday": lambda at: _DAYS[at.tm_wday],
    "isodate": lambda at: time.strftime("%Y-%m-%d", at),
    "isotime": lambda at: time.strftime("%H:%M", at),
}


def without_angles(text: str) -> str:
    """<BOT>, <CHAR> and <USER> of older cards as {{char}} and {{user}}."""
    return _ANGLES.sub(lambda found: "{{user}}" if found[1].lower() == "user" else "{{char}}", text)
