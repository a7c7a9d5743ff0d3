"""model/memory_plan.py: what fits, and what the error says when it does not."""

from __future__ import annotations

import pytest

from model.config import EngineConfig, ModelConfig, ModelLoadError
from model.memory_plan import cache_bytes_per_token, plan_memory
from tests.tiny_models import TINY

MB = 1 << 20
LLAMA_7B = {**TINY, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "head_dim": 128,
            "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 4096,
            "vocab_size": 32000}
MODEL = ModelConfig.from_dict(LLAMA_7B, {}, "7b")


def plan(free: int, weights: int = 4000 * MB, **engine: object):
    return plan_memory(MODEL, EngineConfig(**engine), weight_bytes=weights, scratch_bytes=100 * MB,
                       free_bytes=free)


def test_cache_of_a_token_by_hand():
    assert cache_bytes_per_token(MODEL, "fp16") == 2 * 32 * 32 * 128 * 2 == 512 << 10
    assert cache_bytes_per_token(MODEL, "fp32") == 1 << 20
    assert cache_bytes_per_token(MODEL, "q8") == 2 * 32 * 32 * 128 * 1.0625
    assert cache_bytes_per_token(MODEL, "q4") == 2 * 32 * 32 * 128 * 0.5625


def test_with_much_memory_the_model_decides_and_others_get_pages_too():
    made = plan(64_000 * MB)
    assert made.max_seq_len == 4096
    assert 4096 < made.cache_tokens <= 8 * 4096
    assert made.cache_bytes == made.cache_tokens * (512 << 10)
    assert made.weight_bytes + made.cache_bytes + made.scratch_bytes < made.free_bytes


def test_with_little_memory_the_context_is_what_fits():
    made = plan(5000 * MB)
    per_token = (512 << 10) + 128 * 4  # cache, and sine and cosine of the position
    assert made.max_seq_len == made.cache_tokens == (5000 - 4000 - 100 - 256) * MB // per_token // 32 * 32
    assert made.scratch_bytes == 100 * MB + made.max_seq_len * 128 * 4


def test_a_context_that_does_not_fit_names_the_one_that_does():
    with pytest.raises(ModelLoadError) as error:
        plan(5000 * MB, max_seq_len=4096)
    assert str(error.value) == ("4,096 tokens of fp16 cache need 2.0 GiB; 644 MiB are free beside the "
                                "weights. Use --max-seq-len 1280.")
    assert plan(5000 * MB, max_seq_len=1280).max_seq_len == 1280


def test_a_smaller_cache_is_offered_where_it_fits():
    with pytest.raises(ModelLoadError, match=r"Use --cache fp16 \(2\.0 GiB\) or --max-seq-len 3072"):
        plan(7450 * MB, max_seq_len=4096, cache="fp32")


def test_weights_that_do_not_fit_say_what_they_need():
    with pytest.raises(ModelLoadError, match=r"weights need 39\.1 GiB .* 7\.8 GiB are free.*smaller model"):
        plan(8000 * MB, weights=40_000 * MB)


def test_more_context_than_the_model_was_made_for_is_refused():
    with pytest.raises(ModelLoadError, match=r"made for 4,096 tokens.*--max-seq-len 4096"):
        plan(64_000 * MB, max_seq_len=8192)


def test_the_plan_reads_like_a_table():
    lines = plan(5000 * MB).lines()
    assert lines[0] == "weights     3.9 GiB"
    assert [line.split()[0] for line in lines] == ["weights", "cache", "scratch", "free"]
