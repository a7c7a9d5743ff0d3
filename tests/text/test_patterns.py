"""Strangers' regular expressions: found where they occur, and never waited for."""

import pytest

from model.text.limited_process import ProcessLimits
from model.text.patterns import MAX_REMEMBERED, Patterns


@pytest.fixture(scope="module")
def patterns():
    patterns = Patterns(ProcessLimits(seconds=2.0, memory_bytes=512 << 20))
    yield patterns
    patterns.close()


@pytest.mark.parametrize(("pattern", "text", "is_cased", "occurs"), [
    (r"lamps?\b", "The LAMP.", False, True), (r"lamps?\b", "The LAMP.", True, False),
    (r"/lamps?/i", "The LAMP.", True, True), (r"/lamp/", "The LAMP.", False, False),
    (r"/^b$/m", "a\nb", True, True), (r"/a.b/gs", "a\nb", True, True), (r"/a\/b/", "a/b", True, True),
    (r"(?<first>a)\k", "a", True, False), (r"(?<first>a)b", "ab", True, True), ("(", "(", True, False),
    ("/a/z", "a", True, False), ("", "a", True, True), ("[", "[", True, False), ("\ud800", "a", True, False)])
def test_a_pattern_is_looked_for_by_hand(patterns, pattern, text, is_cased, occurs):
    assert patterns.occurs(pattern, text, is_cased) is occurs


def test_one_that_takes_for_ever_is_given_up_and_no_other_one_waits_for_it_again():
    patterns = Patterns(ProcessLimits(seconds=0.5, memory_bytes=512 << 20))
    try:
        assert patterns.occurs("(a+)+$", "a" * 60 + "!", False) is None
        assert patterns.occurs("(a+)+$", "a", False) is None, "it is known for that now"
        assert patterns.occurs("b", "abc", False) is True
    finally:
        patterns.close()


def test_answers_are_remembered_up_to_a_number(patterns):
    for number in range(MAX_REMEMBERED + 5):
        patterns._known[("x", True, str(number))] = True
    assert patterns.occurs("y", "y", True) is True and len(patterns._known) <= MAX_REMEMBERED
