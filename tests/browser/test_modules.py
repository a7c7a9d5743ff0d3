"""The page's pure modules by hand: events out of a stream, paths through a tree, the bend of a slider."""

import json
import random

import numpy as np
import pytest

from model.kernels.stages import STAGES
from tests.helpers.sampler_cases import random_case

pytestmark = pytest.mark.browser

CHAIN = """(m, cases) => JSON.stringify(JSON.parse(cases).map(([next, settings]) =>
  m.chain(next, settings).map(({ name, p, tokens }) => [name, [...p.slice(0, next.tokens.length)], tokens])
))"""


@pytest.mark.parametrize(
    ("text", "said", "left"),
    [
        ("One is done. Two is", "One is done.", "Two is"),
        ("A line\nand another", "A line", "and another"),
        ("# **Big** [news](https://x.y)\n- `a_b` and *so*\n", "Big news a_b and so", ""),
        ("See:\n```py\nx\ny\n```\nEnd", "See: 2 lines of code.", "End"),
        ("See:\n```py\nx\n", "See:", "```py\nx\n"),
        ("| a | b |\n|--|--|\n| 2 * 3 | c |\n", "a b 2 * 3 c", ""),
        ("今日は雨です。明日は", "今日は雨です。", "明日は"),
        ("", "", ""),
    ],
)
def test_sentences_are_heard_once_they_are_finished_and_without_marks(call, text, said, left):
    found = call("text/sentences", "(m, text) => m.finishedSentences(text, 0, false)", text)
    assert (found["said"], text[found["to"]:]) == (said, left)
    ended = call("text/sentences", "(m, text) => m.finishedSentences(text, 0, true)", text)
    assert ended["to"] == len(text) and ended["said"].startswith(said)


def test_events_are_the_same_wherever_the_stream_is_cut(call):
    stream = (
        ': beat\n\nid: 0\nevent: start\ndata: {"name":"Lin"}\n\n'
        'id: 3\nevent: text\ndata: {"text":"a: b\\n\\nc 👩‍👩‍👧‍👦"}\n\n'
        'id: 00ff:4\r\nevent: done\r\ndata: {}\r\n\r\n'
    )
    expected = [
        {"reply": "", "index": 0, "type": "start", "data": {"name": "Lin"}},
        {"reply": "", "index": 3, "type": "text", "data": {"text": "a: b\n\nc 👩‍👩‍👧‍👦"}},
        {"reply": "00ff", "index": 4, "type": "done", "data": {}},
    ]
    wrong = call(
        "server/stream",
        """(m, [stream, expected]) => {
          const bytes = new TextEncoder().encode(stream);
          const wrong = [];
          for (let cut = 0; cut <= bytes.length; cut += 1) {
            const decoder = new TextDecoder();
            const seen = [];
            let buffer = "";
            for (const part of [bytes.slice(0, cut), bytes.slice(cut)]) {
              const { events, rest } = m.parseEvents(buffer + decoder.decode(part, { stream: true }));
              buffer = rest;
              seen.push(...events);
            }
            if (JSON.stringify(seen) !== JSON.stringify(expected)) wrong.push([cut, seen]);
          }
          return wrong;
        }""",
        [stream, expected],
    )
    assert wrong == []


def test_the_shown_path_and_the_versions_of_a_message(call):
    messages = [
        {"id": "a", "parent": None},
        {"id": "b", "parent": "a"},
        {"id": "c", "parent": "a"},
        {"id": "d", "parent": "b"},
    ]
    shown = call(
        "session/tree",
        """(m, messages) => {
          const session = { messages, leaf: "d" };
          const live = new Map([["e", { messageId: "e", parent: "a", ready: true, bot: "x", name: "X" }]]);
          const ids = (lives, view) => m.shownPath(session, lives, view).map((one) => one.id).join("");
          return [ids(new Map(), null), ids(live, "e"), ids(live, null),
                  m.versions(session, live, messages[1]).join(""),
                  m.shownPath({ messages: [], leaf: null }, new Map(), null).length];
        }""",
        messages,
    )
    assert shown == ["abd", "ae", "abd", "bce", 0]


def test_a_slider_is_bent_so_that_the_usual_value_stands_near_the_middle(call):
    found = call(
        "sampling/field",
        """(m) => [[0, 1, 0.95], [0, 5, 0.8], [1, 2048, 512], [0, 1000, 0]].map((range) => {
          const [low, high, usual] = range;
          const scale = m.scale(low, high, usual);
          const there = [0, 0.25, 0.5, 0.75, 1];
          const back = there.map((at) => Math.abs(scale.toShare(scale.toValue(at)) - at));
          return [scale.toShare(usual), scale.toValue(0), scale.toValue(1), Math.max(...back) < 1e-9];
        })""",
    )
    assert [round(row[0], 2) for row in found] == [0.95, 0.45, 0.45, 0.0]
    assert [row[1:] for row in found] == [[0, 1, True], [0, 5, True], [1, 2048, True], [0, 1000, True]]


def test_numbers_are_read_as_people_write_them(call):
    texts = ["0,7", "0.7", ",5", "-1,5", "1,024", "12,345,678", "7", " 7 ", "1,2,3", "x", "", "1e5"]
    code = "(m, texts) => texts.map((text) => [m.readNumber(text, false), m.readNumber(text, true)])"
    found = call("sampling/field", code, texts)
    assert found == [
        [0.7, 0.7], [0.7, 0.7], [0.5, 0.5], [-1.5, -1.5], [1.024, 1024], [None, 12345678], [7, 7], [7, 7],
        [None, None], [None, None], [None, None], [None, None],
    ]  # fmt: skip


def test_a_text_keeps_the_indentation_of_its_first_line_and_loses_empty_ones(call):
    texts = ["  a\n b \n", "\n \n\tif x:\n\t\ty", "a", " \n "]
    assert call("base/input", "(m, texts) => texts.map(m.trimLines)", texts) == [
        "  a\n b", "\tif x:\n\t\ty", "a", "",
    ]  # fmt: skip


def test_numbers_and_times_are_written_as_people_read_them(call):
    found = call(
        "base/format",
        """(m) => [m.count(28640), m.tokens(1), m.tokens(2_000), m.duration(0.314),
          m.duration(75),
          m.bytes(4.9e9), m.bytes(123e6), m.stepped(0.5, 0.01), m.stepped(12, 1),
          m.ageGroup(Date.now() / 1000), m.ageGroup(0)]""",
    )
    assert found == [
        "28,640", "1 token", "2,000 tokens", "0.31 s", "1 min 15 s",
        "4.9 GB", "123 MB", "0.50", "12", "Today", "Older",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "formulas"),
    [
        ("It costs $5 and $10.", []),
        ("$5 (or 10$), between $3 and $4, US$7, 8$", []),
        ("PATH=$HOME/bin:$PATH and $a and $b", []),
        ("`$x$` and \\$x\\$", []),
        ("Euler: $e^{i\\pi} + 1 = 0$, with $x$, $2n$ and $f(x)$.", ["e^{i\\pi} + 1 = 0", "x", "2n", "f(x)"]),
        ("Inline \\(a_1 + b_2\\) and\n\\[ c^2 \\]\n$$\nd\n$$", ["a_1 + b_2", "c^2", "d"]),
        ("$$\nnever closed", []),
        ("Half a line $$x^2$$ and $$ y $$ more, $$ $$ nothing", ["x^2", "y"]),
        ("\\(a\n b\\) but not \\(c\n\nd\\) and \\(e\\\\) f\\)", ["a\n b", "e\\\\) f"]),
        ("$a\nb$ and $`c`$ and $d$e", []),
        ("   $$ x $$  \n\\[\ny\n\nz\n\\]\nand $$ not $ closed $$", ["x", "y\n\nz"]),
        ("$$ x $$ with a tail", ["x"]),
        ("- in a list \\(x\\)\n\n| a |\n|---|\n| $y$ |", ["x", "y"]),
    ],
)
def test_money_is_no_mathematics_and_mathematics_is(call, text, formulas):
    found = call(
        "text/markdown",
        """async (m, text) => {
          const root = document.createElement("div");
          new m.MarkdownView(root).show(text);
          return [...root.querySelectorAll(".math")].map((one) => one.textContent);
        }""",
        text,
    )
    assert found == formulas


@pytest.mark.parametrize(
    ("field", "base", "ours", "theirs", "both"),
    [
        ("title", "a", "b", "a", "b"),
        ("title", "a", "b", "c", "b"),
        ("title", "a", "a", "c", "c"),
        ("sampling", {"a": 1}, {"a": 1, "b": 2}, {"a": 3}, {"a": 3, "b": 2}),
        ("sampling", {"a": 1, "b": 1}, {"b": 2}, {"a": 1, "b": 1, "c": 5}, {"b": 2, "c": 5}),
        ("sampling", {"a": [1]}, {"a": [1]}, {}, {}),
        ("bots", "ab", "abc", "a", "ac"),
        ("bots", "ab", "b", "abd", "bd"),
        ("bots", "abc", "cab", "abcd", "cabd"),
        ("bots", "ab", "aB", "ba", "Ba"),
        ("bots", "ab", "ab", "b", "b"),
        ("bots", "ab", "abc", "acb", "acb"),
    ],
)
def test_a_change_of_ours_leaves_what_others_changed_elsewhere(call, field, base, ours, theirs, both):
    def entries(value):
        """Bots by a letter each, capital when muted."""
        if field != "bots":
            return value
        return [{"id": letter.lower(), "muted": letter.isupper()} for letter in value]

    found = call(
        "session/unsaved",
        "(m, [field, base, ours, theirs]) => m.merged(field, base, ours, theirs)",
        [field, entries(base), entries(ours), entries(theirs)],
    )
    assert found == entries(both)


def test_what_one_tab_has_not_saved_is_not_dropped_by_another(call):
    found = call(
        "session/unsaved",
        """(m) => {
          const session = { id: "00000000000000aa", system_prompt: "", user_name: "", title: "" };
          const stored = () => localStorage.getItem(`parlor.unsaved.${session.id}`) || "{}";
          const kept = () => Object.keys(JSON.parse(stored()));
          const [first, second] = [new m.Unsaved(), new m.Unsaved()];
          for (const tab of [first, second]) tab.belongTo(session.id);
          first.add(session, { system_prompt: "typed in the first tab" });
          second.add(session, { user_name: "Ada" });
          const both = kept();
          second.settle(session.id, { user_name: "Ada" });
          second.onTopOf(session);
          const left = kept();
          const third = new m.Unsaved(); // the first tab was closed; this one opens the session later
          third.belongTo(session.id);
          return [both, left, third.onTopOf(session).system_prompt, third.isEmpty];
        }""",
    )
    assert found == [["system_prompt", "user_name"], ["system_prompt"], "typed in the first tab", False]


@pytest.mark.parametrize(("vocab_size", "whole", "closeness"), [(60, True, 1e-9), (3000, False, 2e-3)])
def test_the_page_computes_each_stage_of_sampling_as_the_server_does(call, vocab_size, whole, closeness):
    """In every order; whatever is shown of the X-ray is computed so. Of tokens in groups the page knows not
    which is which, so that a cut may take one more or less of them."""
    rng = random.Random(vocab_size)
    cases = [random_case(rng, vocab_size, whole) for _ in range(150 if whole else 12)]
    asked = json.dumps([[case.next_token, case.settings] for case in cases])
    found = call("sampling/sampler-chain", CHAIN, asked)  # as text: objects take Playwright many seconds
    compared = set()
    for case, steps in zip(cases, json.loads(found), strict=True):
        told = {name: (shares, tokens) for name, shares, tokens in steps}
        for name, expected in case.steps:
            shares, tokens = told[name]
            kept = [expected[token["id"]] for token in case.next_token["tokens"]]
            assert np.allclose(shares, kept, rtol=0, atol=closeness), (name, case.settings)
            assert tokens == pytest.approx(sum(one > 0 for one in expected), rel=0 if whole else 0.02)
            compared.add(name)
    assert compared == {"model", *STAGES}
