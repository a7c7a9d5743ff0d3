"""Constraints followed by a chooser that takes any token the mask allows, on every kind of tokenizer."""

from __future__ import annotations

import json
import random
import re

import numpy as np
import pytest

from model.text.constraint import Constraint, ConstraintCompiler, _TokenTable
from model.text.limited_process import ProcessLimits
from model.text.tokenizer import Tokenizer
from tests.helpers.text_samples import (
    CHATML_BYTES,
    LLAMA_SP,
    TEXTS,
    llama3_folder,
    qwen_folder,
    sentencepiece_folder,
    starter_folder,
    unigram_folder,
)

FOLDERS = {"llama_sp": LLAMA_SP, "chatml_bytes": CHATML_BYTES, "llama3": llama3_folder, "qwen": qwen_folder,
           "starter": starter_folder, "sp_bpe": sentencepiece_folder,
           "sp_unigram": lambda folder: sentencepiece_folder(folder, "unigram"), "unigram": unigram_folder}
NUM_UNUSED = 5  # rows of the weights beyond the vocabulary

CHOICES = ["yes, please", "no", "Maybe 你好 so"]
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["name", "age"], "properties": {
    "name": {"enum": ["Ann", "Zoë"]}, "age": {"type": "integer", "minimum": 0, "maximum": 150}}}


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    return {name: Tokenizer.load(folder(tmp_path_factory.mktemp(name)) if callable(folder) else folder)
            for name, folder in FOLDERS.items()}


@pytest.fixture
def compilers(tokenizers):
    made = []

    def make(name, *limits):
        made.append(ConstraintCompiler(tokenizers[name], tokenizers[name].vocab_size + NUM_UNUSED, *limits))
        return made[-1]

    yield make
    for compiler in made:
        compiler.close()


def allowed(matcher, vocab_size):
    mask = np.zeros((vocab_size + 31) // 32, np.int32)
    matcher.fill_mask(mask)
    return np.unpackbits(mask.view(np.uint8), bitorder="little")[:vocab_size].nonzero()[0].tolist()


def written(tokenizer, compiler, constraint, seed):
    """What somebody writes who takes any allowed token."""
    vocab_size, rng, data = tokenizer.vocab_size + NUM_UNUSED, random.Random(seed), b""
    matcher = compiler.matcher(constraint)
    for _ in range(300):
        if matcher.is_complete:
            break
        token_id = rng.choice(allowed(matcher, vocab_size))
        if token_id in tokenizer.eos_ids:
            break
        matcher.accept([token_id])
        data += tokenizer.token_bytes(token_id)
    return data.decode()


@pytest.mark.parametrize("name", sorted(FOLDERS.keys() - {"unigram"}))  # which cannot spell everything
def test_whatever_is_chosen_has_the_form_on_every_kind_of_tokenizer(tokenizers, compilers, name):
    tokenizer, compiler = tokenizers[name], compilers(name)
    for seed in range(10):
        assert written(tokenizer, compiler, Constraint.choice(CHOICES), seed) in CHOICES
        made = json.loads(written(tokenizer, compiler, Constraint.json_schema(SCHEMA), seed))
        assert made["name"] in ("Ann", "Zoë") and 0 <= made["age"] <= 150
        assert re.fullmatch("(ab|cd, )[0-9]{3}x", written(tokenizer, compiler,
                                                          Constraint.regex("(ab|cd, )[0-9]{3}x"), seed))


@pytest.mark.parametrize("name", sorted(FOLDERS.keys() - {"unigram"}))  # which cannot spell everything
def test_fragments_are_encoded_as_they_stand_in_the_middle_of_a_text(tokenizers, name):
    """Their tokens spell them exactly: nothing is put in front, nothing is left out."""
    tokenizer = tokenizers[name]
    table = _TokenTable(tokenizer, tokenizer.vocab_size)
    for text in [*TEXTS, "</s>", "<|im_end|>", "[INST]"]:
        found = table(text)
        assert b"".join(table.tokens[token_id] for token_id in found) == text.encode(), text
        assert found == table(text.encode()) and not set(found) & tokenizer.control_ids
    assert len(table(TEXTS[3])) < len(TEXTS[3])  # in tokens of more than a letter


def test_what_a_vocabulary_cannot_spell_is_spelt_as_far_as_it_goes(tokenizers, compilers):
    tokenizer = tokenizers["unigram"]
    spelt = b"".join(map(tokenizer.token_bytes, tokenizer.encode_within("fox 🙂")))
    assert spelt in (b"fox", b"fox ")
    with pytest.raises(ValueError, match="constraint cannot be"):
        for _ in range(5):
            matcher = compilers("unigram").matcher(Constraint.choice(["🙂🙂"]))
            matcher.accept(allowed(matcher, tokenizer.vocab_size)[:1] or [0])


@pytest.mark.parametrize(("constraint", "problem"), [
    (Constraint.regex("(a{1000}){1000}"), "too many expressions"),
    (Constraint.regex(".*" * 500), "lexer precomputation failed"),
    (Constraint.regex(".*" * 32_000), "longer than 2 seconds|more memory"),
    (Constraint.json_schema({"type": "string", "pattern": "^(a{1000}){1000}$"}), "too many expressions")])
def test_a_constraint_that_grows_is_refused_before_it_reaches_the_engine(compilers, constraint, problem):
    compiler = compilers("chatml_bytes", ProcessLimits(seconds=2, memory_bytes=1 << 30))
    with pytest.raises(ValueError, match=f"{constraint.kind} constraint cannot be used: .*({problem})"):
        compiler.matcher(constraint)
    assert compiler.matcher(Constraint.choice(["a", "b"]))


def test_a_long_constraint_that_does_not_grow_is_taken(compilers):
    compilers("chatml_bytes").matcher(Constraint.choice([f"answer number {i}" for i in range(1500)]))
    compilers("chatml_bytes").matcher(Constraint.regex("a{0,50000}b"))


def test_a_panic_of_the_grammars_library_is_an_error_of_this_one_reply(compilers, monkeypatch):
    class Panic(BaseException):
        """As pyo3's PanicException: no Exception."""

    compiler = compilers("chatml_bytes")
    matcher = compiler.matcher(Constraint.choice(["a"]))

    class Panicking:
        def __getattr__(self, name):
            raise Panic("called `Option::unwrap()` on a `None` value")

    matcher._matcher = Panicking()
    for call in (lambda: matcher.accept([1]), lambda: matcher.fill_mask(np.zeros(99, np.int32)),
                 lambda: matcher.take_back(1), lambda: matcher.count_possible([1])):
        with pytest.raises(ValueError, match="constraint cannot be followed: called `Option"):
            call()
    monkeypatch.setattr(compiler, "_compiled", lambda constraint: Panicking())
    with pytest.raises(ValueError, match="constraint cannot be followed"):
        compiler.matcher(Constraint.choice(["b"]))
