"""Where a text is broken into sequences that are not taken for one."""

from __future__ import annotations

import random

import pytest

from model.text.sequence_breaks import SequenceBreaks
from model.text.tokenizer import Tokenizer
from tests.helpers.text_samples import CHATML_BYTES, LLAMA_SP


@pytest.fixture(scope="module", params=[CHATML_BYTES, LLAMA_SP], ids=["bytes", "sentencepiece"])
def tokenizer(request):
    return Tokenizer.load(request.param)


def test_a_breaker_ends_in_a_token_however_it_is_cut_into_tokens(tokenizer):
    token_ids = [token_id for text in ("A", "\n", "\n", ":", "b") for token_id in
                 tokenizer.encode(text, add_bos=False, add_eos=False)]
    texts = [tokenizer.token_bytes(token_id) for token_id in token_ids]
    found = SequenceBreaks(("\n\n", "\n:b"), tokenizer).flags(token_ids, 0)
    ends = [b"".join(texts[:count + 1]) for count in range(len(texts))]
    assert found == [int(text.endswith((b"\n\n", b"\n:b"))) for text in ends]


def test_a_part_of_a_text_has_the_breaks_that_it_has_in_the_whole(tokenizer):
    rng = random.Random(3)
    token_ids = [rng.randrange(tokenizer.vocab_size) for _ in range(400)]
    texts = [tokenizer.token_bytes(token_id) for token_id in token_ids]
    breaks = SequenceBreaks(("e", "a\n", '"', "th"), tokenizer)
    whole, text = breaks.flags(token_ids, 0), b""
    for flag, piece in zip(whole, texts, strict=True):
        ends = range(len(text) + 1, len(text) + len(piece) + 1)
        text += piece
        assert flag == any(text[:end].endswith((b"e", b"a\n", b'"', b"th")) for end in ends)
    for first in range(0, 400, 7):
        begin = max(0, first - breaks.reach - sum(not text for text in texts))
        assert breaks.flags(token_ids[begin:first + 3], first - begin) == whole[first:first + 3]


def test_without_breakers_nothing_is_broken_and_unknown_tokens_have_no_text(tokenizer):
    assert SequenceBreaks((), tokenizer).flags([0, 1, tokenizer.vocab_size + 5], 1) == [0, 0]
