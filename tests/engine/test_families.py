"""Every family against transformers, and what must hold for each kind of layer whatever else is computed."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.engine.engine import Engine
from model.formats.checkpoint import open_model
from model.network.modules import layer_modules
from model.network.weights import bytes_by_layer, weight_infos
from tests.helpers.chosen_experts import held_to, noted_choices
from tests.helpers.family_models import MIXTURES, VARIANTS, write_family
from tests.helpers.gguf_files import write_gguf
from tests.helpers.renamed_models import RENAMED, write_renamed
from tests.helpers.tiny_engine import NO_EOS, load, outcome, params, prompt, shrink, tokens

EXACT = {"exact": True, "cache": "fp32"}
KINDS = ("llama dynamic", "mistral window", "ministral 3", "qwen 3", "gemma 2", "phi 3", "olmo 3", "cohere 2",
         "hunyuan", "starcoder 2", "stablelm, parallel", "gpt-2", "qwen 2 moe", "gpt-oss", "gemma 3n",
         "gemma 4", "gemma 4 small", "deepseek 3", "llama 4", "lfm 2", "lfm 3", "qwen 3.5", "kimi linear",
         "nemotron h", "nemotron 3 latent", "falcon h1", "small thinker", "mamba 2")
"""Variants that have every kind of layer among them."""
FLIPPING = ("gpt-oss", "deepseek 3", "llama 4")
"""Mixtures in which keys of 8 bits choose another expert at a near tie: of 100 rows of the prompt below 2 to
11 do, and 9 to 33 are off by more than 6e-2, those that attend to them included."""


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def random_ids(length: int) -> torch.Tensor:
    return torch.randint(0, 96, (1, length), generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_transformers(tmp_path: Path, variant: str):
    """Prompts below and above windows, spans and lengths that RoPE was made for; in chunks of 32. Rounded, a
    mixture may take another expert at a near tie, so that nine rows of ten count there."""
    model = write_family(tmp_path, variant)
    token_ids = random_ids(150)
    exact, rounded = load(tmp_path, prefill_chunk=32, **EXACT), load(tmp_path, prefill_chunk=32)
    try:
        for length in (1, 30, 150):
            with torch.no_grad():
                want = model(token_ids[:, :length], use_cache=False).logits[0]
            ids, size = token_ids[0, :length].tolist(), want.shape[-1]  # of Apertus 1.5 less than all tokens
            assert relative_error(exact.logits(ids)[:, :size], want) < 2e-4  # Qwen3-Next: 6e-5 from float64
            of_rows = (rounded.logits(ids)[:, :size] - want).abs().amax(-1) / want.abs().max()
            assert of_rows.quantile(0.9 if variant in MIXTURES else 1.0) < 3e-2
    finally:
        exact.close()
        rounded.close()


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    (write_renamed if request.param in RENAMED else write_family)(folder, request.param)
    return folder


@pytest.fixture
def engine(folder: Path) -> Any:
    made = load(folder, prefill_chunk=32)
    yield made
    made.close()


def test_a_reply_is_the_same_alone_and_in_a_batch(folder: Path, engine: Engine):
    """Prompts of one to three windows, some of which grow beyond the length that RoPE was made for."""
    prompts = [prompt(length, seed=length) for length in (3, 25, 50, 70)]
    alone = []
    for token_ids in prompts:
        fresh = load(folder, prefill_chunk=32)
        alone.append(tokens(fresh, token_ids))
        fresh.close()
    together = [engine.submit(token_ids, params(), NO_EOS) for token_ids in prompts]
    assert [outcome(request)[0] for request in together] == alone


def test_a_prompt_in_chunks_has_the_logits_of_the_whole(folder: Path, engine: Engine):
    whole = load(folder, prefill_chunk=256)
    try:
        assert torch.equal(engine.logits(prompt(100)), whole.logits(prompt(100)))
    finally:
        whole.close()


def test_what_is_taken_from_the_cache_changes_no_reply(folder: Path, engine: Engine):
    """Also from a beginning that was rotated as a short sequence, for one that is a long one."""
    fresh = load(folder, prefill_chunk=32)
    try:
        first = prompt(40)
        reply = tokens(engine, first)
        for turn in ([*first, *reply, 5], [*first, *reply, *prompt(40, seed=3)]):
            again = outcome(engine.submit(turn, params(), NO_EOS))
            assert again[0] == tokens(fresh, turn)
    finally:
        fresh.close()


def test_guesses_change_no_reply(folder: Path, engine: Engine):
    """A prompt that repeats itself makes many of them, right and wrong."""
    plain = load(folder, prefill_chunk=32, speculation=False)
    try:
        for length in (9, 40):
            turn = prompt(length) * 2 + prompt(length)[:length // 2]
            settings = params(max_new_tokens=50, temperature=0.0)
            assert tokens(engine, turn, settings) == tokens(plain, turn, settings)
    finally:
        plain.close()


def test_replies_that_are_thrown_out_come_out_the_same(folder: Path):
    """The cache holds two of four."""
    roomy, tight = load(folder, prefill_chunk=32), load(folder, prefill_chunk=32, max_seq_len=128)
    try:
        shrink(tight, 6)
        prompts = [prompt(length, seed=length) for length in (20, 33, 40, 50)]
        settings = params(max_new_tokens=40)
        together = [tight.submit(token_ids, settings, NO_EOS) for token_ids in prompts]
        assert [outcome(request)[0] for request in together] == [
            tokens(roomy, token_ids, settings) for token_ids in prompts]
    finally:
        roomy.close()
        tight.close()


@pytest.mark.parametrize(("cache", "tolerance"), [("fp16", 4e-3), ("q8", 6e-2), ("q4", 0.8)])
def test_a_rounded_cache_changes_logits_a_little(folder: Path, request: pytest.FixtureRequest, cache: str,
                                                 tolerance: float):
    """Where experts are chosen anew, with the choices that exact keys lead to."""
    exact, rounded = load(folder, **EXACT), load(folder, exact=True, cache=cache)
    flips = request.node.callspec.params["folder"] in FLIPPING
    try:
        with noted_choices() as choices:
            want = exact.logits(prompt(100))
        with held_to(choices) if flips else nullcontext():
            got = rounded.logits(prompt(100))
        difference = float((got - want).norm() / want.norm())
        keeps_keys = bool(exact.model_config.spec.attentions)  # a state is never rounded
        assert difference < tolerance and (difference > 0) == keeps_keys
    finally:
        exact.close()
        rounded.close()


@pytest.mark.parametrize("name", RENAMED)
def test_families_without_a_class_have_the_logits_of_one_with_the_same_layers(tmp_path: Path, name: str):
    model = write_renamed(tmp_path, name)
    engine = load(tmp_path, prefill_chunk=32, **EXACT)
    try:
        with torch.no_grad():
            want = model(random_ids(100), use_cache=False).logits[0]
        assert relative_error(engine.logits(random_ids(100)[0].tolist()), want) < 1e-4
    finally:
        engine.close()


def test_a_gate_of_a_head_is_kept_for_each_of_its_numbers_and_planned_so(tmp_path: Path):
    """Layer 1 of LFM3: 4 heads of 16 numbers, 2 of keys, an mlp of 80; float32."""
    write_family(tmp_path, "lfm 3")
    config, reader = open_model(tmp_path, exact=True)
    attends = layer_modules(config.spec, config.names, 1)[0]
    assert [attends.times(name) for name in attends.modules] == [1, 1, 1, 16] and attends.n == 64 + 64 + 64
    of_layers = bytes_by_layer(weight_infos(reader, config, exact=True), config)[1]
    assert of_layers[1] == 4 * 64 * (attends.n + 64 + 3 * 80)


def test_kimi_linear_has_its_dense_mlp_where_it_was_published(tmp_path: Path):
    """transformers saves it where the experts of other layers are; both are read."""
    model = write_family(tmp_path, "kimi linear")
    for file in tmp_path.glob("model*.safetensors"):
        tensors = load_file(file)
        save_file({name.replace("layers.0.block_sparse_moe.", "layers.0.mlp."): tensor
                   for name, tensor in tensors.items()}, file, metadata={"format": "pt"})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(index.read_text().replace("layers.0.block_sparse_moe.", "layers.0.mlp."))
    engine = load(tmp_path, **EXACT)
    try:
        with torch.no_grad():
            want = model(random_ids(40), use_cache=False).logits[0]
        assert relative_error(engine.logits(random_ids(40)[0].tolist()), want) < 1e-4
    finally:
        engine.close()


def test_gpt_oss_of_a_gguf_file_has_the_logits_of_transformers(tmp_path: Path):
    """Sinks, windows, clamped experts with biases: by the names and in the rows of llama.cpp's converter."""
    import transformers

    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 32,
            "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False}
    config = transformers.GptOssConfig(
        vocab_size=96, hidden_size=64, intermediate_size=24, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=5, num_experts_per_tok=2, sliding_window=20,
        max_position_embeddings=512, rope_parameters=rope, initializer_range=0.3, tie_word_embeddings=False)
    config._attn_implementation = "eager"
    torch.manual_seed(1)
    model = transformers.GptOssForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name or "bias" in name or "sinks" in name:
            parameter.data += torch.randn_like(parameter) * 0.5
    tensors = gpt_oss_tensors(model.state_dict())
    keys = {"block_count": 4, "context_length": 512, "embedding_length": 64, "feed_forward_length": 24,
            "attention.head_count": 4, "attention.head_count_kv": 2, "attention.key_length": 16,
            "attention.layer_norm_rms_epsilon": 1e-5, "attention.sliding_window": 20, "rope.freq_base": 1e4,
            "rope.scaling.type": "yarn", "rope.scaling.factor": 4.0,
            "rope.scaling.original_context_length": 32, "expert_count": 5, "expert_used_count": 2,
            "expert_feed_forward_length": 24}
    write_gguf(tmp_path / "m.gguf", {"general.architecture": "gpt-oss", "tokenizer.ggml.tokens": ["x"] * 96,
                                     **{f"gpt-oss.{key}": value for key, value in keys.items()}},
               {name: (0, tensor.contiguous().numpy()) for name, tensor in tensors.items()})
    engine = load(tmp_path / "m.gguf", prefill_chunk=32, **EXACT)
    try:
        with torch.no_grad():
            want = model(random_ids(100), use_cache=False).logits[0]
        assert relative_error(engine.logits(random_ids(100)[0].tolist()), want) < 1e-4
    finally:
        engine.close()


def gpt_oss_tensors(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By GGUF's names; gate and up alternate by column in transformers' tensors, whose inputs come first."""
    tensors = {"token_embd.weight": state["model.embed_tokens.weight"],
               "output.weight": state["lm_head.weight"], "output_norm.weight": state["model.norm.weight"]}
    for layer in range(4):
        part, out = f"model.layers.{layer}.", f"blk.{layer}."
        for ours, theirs in (("q_proj", "attn_q"), ("k_proj", "attn_k"), ("v_proj", "attn_v"),
                             ("o_proj", "attn_output")):
            for end in ("weight", "bias"):
                tensors[f"{out}{theirs}.{end}"] = state[f"{part}self_attn.{ours}.{end}"]
        tensors[out + "attn_sinks.weight"] = state[part + "self_attn.sinks"]
        tensors[out + "attn_norm.weight"] = state[part + "input_layernorm.weight"]
        tensors[out + "post_attention_norm.weight"] = state[part + "post_attention_layernorm.weight"]
        for end in ("weight", "bias"):
            tensors[f"{out}ffn_gate_inp.{end}"] = state[f"{part}mlp.router.{end}"]
        experts = part + "mlp.experts."
        for first, name in enumerate(("ffn_gate_exps", "ffn_up_exps")):
            tensors[f"{out}{name}.weight"] = state[experts + "gate_up_proj"][:, :, first::2].transpose(1, 2)
            tensors[f"{out}{name}.bias"] = state[experts + "gate_up_proj_bias"][:, first::2]
        tensors[out + "ffn_down_exps.weight"] = state[experts + "down_proj"].transpose(1, 2)
        tensors[out + "ffn_down_exps.bias"] = state[experts + "down_proj_bias"]
    return tensors
