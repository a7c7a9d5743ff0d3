"""LoRA adapters beside a model: what they add, and that nobody else's rows change by it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model.engine.engine import Engine
from model.engine.loaded_adapters import AdapterKey
from model.engine.speculation import Speculator
from model.files import ModelLoadError
from tests.engine.test_speculation import Prophet, always
from tests.helpers.adapters import (
    Products,
    merged,
    random_products,
    write_gguf_adapter,
    write_peft,
)
from tests.helpers.family_models import write_family
from tests.helpers.gguf_models import write_llama
from tests.helpers.tiny_engine import (
    NO_EOS,
    load,
    outcome,
    params,
    prompt,
    quantized_model,
    shrink,
    tokens,
)
from tests.helpers.tiny_models import TINY, linear_sizes, random_tensors, write_model

EXACT = {"exact": True, "cache": "fp32"}
FAMILIES = ("llama yarn", "qwen 3", "gemma 3", "phi 3", "cohere 2", "gpt-neox", "stablelm, parallel",
            "gemma 4 small", "qwen 3.5", "lfm 2", "falcon h1", "qwen 3 moe")
_REFUSED = ("lm_head", "embed", "experts", "per_layer", "mlp.gate")


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    return float((got - want).abs().max() / want.abs().max())


def all_sizes(config: dict[str, Any] = TINY) -> dict[str, tuple[int, int]]:
    return {name: size for layer in range(config["num_hidden_layers"])
            for name, size in linear_sizes(config, layer).items()}


@pytest.mark.parametrize("variant", FAMILIES)
def test_logits_are_those_of_the_merged_weights(tmp_path: Path, variant: str):
    """In transformers. Every Linear that may have an adapter has one; alone, in chunks, and beside none."""
    model = write_family(tmp_path / "model", variant)
    modules = {name: module for name, module in model.named_modules()
               if isinstance(module, torch.nn.Linear) and not any(part in name for part in _REFUSED)}
    products = random_products({name: tuple(of.weight.shape) for name, of in modules.items()}, rank=3)
    write_peft(tmp_path / "adapter", products, lora_alpha=2)
    engine = load(tmp_path / "model", prefill_chunk=32, adapters=[("a", tmp_path / "adapter")], **EXACT)
    try:
        ids = prompt(70)
        with torch.no_grad():
            plain = model(torch.tensor([ids]), use_cache=False).logits[0]
            for name, (down, up) in products.items():
                modules[name].weight += 2 / 3 * up @ down
            want = model(torch.tensor([ids]), use_cache=False).logits[0]
        assert relative_error(plain, want) > 0.1
        assert relative_error(engine.logits(ids, adapter="a"), want) < 1e-4
        assert relative_error(engine.logits(ids), plain) < 1e-4
    finally:
        engine.close()


@pytest.fixture(scope="module")
def tensors() -> dict[str, torch.Tensor]:
    return random_tensors(TINY)


@pytest.fixture(scope="module")
def products() -> Products:
    return random_products(all_sizes(), rank=5)


@pytest.mark.parametrize(("model_is_gguf", "adapter_is_gguf"), [(True, True), (True, False), (False, True)])
def test_an_adapter_fits_the_model_in_either_format(tmp_path: Path, tensors: dict[str, torch.Tensor],
                                                    products: Products, model_is_gguf: bool,
                                                    adapter_is_gguf: bool):
    """GGUF has the rows of Llama's queries and keys in another order. A scale of 3 / 5."""
    if model_is_gguf:
        model = tmp_path / "m.gguf"
        write_llama(model, TINY, tensors)
    else:
        model = write_model(tmp_path / "m", tensors=tensors)
    if adapter_is_gguf:
        adapter = write_gguf_adapter(tmp_path / "a.gguf", products, TINY, 3.0)
    else:
        adapter = write_peft(tmp_path / "a", products, lora_alpha=3)
    whole = write_model(tmp_path / "merged", tensors=merged(tensors, products, 3 / 5))
    engine, reference = load(model, adapters=[("a", adapter)], **EXACT), load(whole, **EXACT)
    try:
        ids = prompt(40)
        want = reference.logits(ids)
        assert relative_error(engine.logits(ids, adapter="a"), want) < 1e-4
        assert relative_error(engine.logits(ids), want) > 0.1
    finally:
        engine.close()
        reference.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, Path]]]:
    """A model of 4-bit weights and two adapters, one of them of some modules and in bfloat16."""
    folder = tmp_path_factory.mktemp("adapters")
    sizes = all_sizes()
    some = {name: size for name, size in sizes.items() if name.endswith(("q_proj", "v_proj", "up_proj"))}
    write_peft(folder / "one", random_products(sizes, rank=4, seed=1))
    write_peft(folder / "two", random_products(some, rank=8, seed=2, dtype=torch.bfloat16))
    return quantized_model(folder / "model"), [("one", folder / "one"), ("two", folder / "two")]


@pytest.fixture
def engine(folders: tuple[Path, list[tuple[str, Path]]]) -> Iterator[Engine]:
    made = load(folders[0], adapters=folders[1], prefill_chunk=32)
    yield made
    made.close()


def written(engine: Engine, ids: list[int], adapter: str | None, **changes: Any) -> list[int]:
    return outcome(engine.submit(ids, params(**changes), NO_EOS, adapter=adapter))[0]


def test_replies_with_several_adapters_are_the_same_alone_and_together(
        folders: tuple[Path, list[tuple[str, Path]]], engine: Engine):
    """One prompt for all of them, prompts of several chunks, and none at all for some; the model without
    adapters writes what it writes beside them."""
    asked = [(prompt(length, seed=seed), name) for length, seed, name in (
        (9, 1, "one"), (9, 1, "two"), (9, 1, None), (70, 2, "two"), (40, 3, None), (50, 4, "one"))]
    alone, bare = [], load(folders[0], prefill_chunk=32)
    for ids, name in asked:
        fresh = load(folders[0], adapters=folders[1], prefill_chunk=32)
        alone.append(written(fresh, ids, name))
        fresh.close()
    together = [engine.submit(ids, params(), NO_EOS, adapter=name) for ids, name in asked]
    assert [outcome(request)[0] for request in together] == alone
    assert len({tuple(reply) for reply in alone[:3]}) == 3
    try:
        assert [tokens(bare, ids) for ids, name in asked if name is None] == [alone[2], alone[4]]
    finally:
        bare.close()


def test_pages_of_one_adapter_never_serve_another(folders: tuple[Path, list[tuple[str, Path]]],
                                                  engine: Engine):
    ids = prompt(60)
    first = engine.submit(ids, params(), NO_EOS, adapter="one")
    reply, _ = outcome(first)
    for name, is_known in (("two", False), (None, False), ("one", True), ("two", True), (None, True)):
        got, end = outcome(engine.submit(ids, params(), NO_EOS, adapter=name))
        assert (end.stats.cached_tokens > 0) == is_known
        fresh = load(folders[0], adapters=folders[1], prefill_chunk=32)
        try:
            assert got == written(fresh, ids, name)
        finally:
            fresh.close()
    assert reply == written(engine, ids, "one")


def test_guesses_change_no_reply_of_an_adapter(folders: tuple[Path, list[tuple[str, Path]]], engine: Engine):
    """Guesses of which every fifth token is wrong, checked together, and of two adapters in one step."""
    ids, settings = {"one": prompt(20, seed=1), "two": prompt(30, seed=2)}, params(max_new_tokens=60)
    engine._speculator = None
    truth = {tuple(ids[name]): written(engine, ids[name], name, max_new_tokens=60) for name in ids}
    guessing = load(folders[0], adapters=folders[1], prefill_chunk=32)
    guessing._speculator = Speculator(Prophet(truth, wrong=0.2))
    guessing._speculator.choose = always
    try:
        requests = [guessing.submit(ids[name], settings, NO_EOS, adapter=name) for name in ids]
        for request, (reply, end) in zip(requests, map(outcome, requests), strict=True):
            assert reply == truth[tuple(request.prompt)]
            assert 0 < end.stats.accepted_tokens < end.stats.drafted_tokens
    finally:
        guessing.close()


def test_replies_that_are_thrown_out_come_out_the_same(folders: tuple[Path, list[tuple[str, Path]]],
                                                       engine: Engine):
    """The cache holds two of four."""
    tight = load(folders[0], adapters=folders[1], prefill_chunk=32, max_seq_len=128)
    try:
        shrink(tight, 6)
        asked = [(prompt(length, seed=length), name)
                 for length, name in ((20, "one"), (33, "two"), (40, "one"), (50, None))]
        together = [tight.submit(ids, params(max_new_tokens=40), NO_EOS, adapter=name) for ids, name in asked]
        assert [outcome(request)[0] for request in together] == [
            written(engine, ids, name, max_new_tokens=40) for ids, name in asked]
    finally:
        tight.close()


def test_steps_without_an_adapter_make_the_same_calls_as_without_any(
        folders: tuple[Path, list[tuple[str, Path]]], engine: Engine):
    """Recorded: as many native calls for one row, and more with an adapter."""
    def recorded(of: Engine, has_adapters: bool) -> int:
        recorder = of._runner._transformer.stages[0]._recorder
        return len(recorder._lists[1, 1, has_adapters])

    bare = load(folders[0])
    try:
        tokens(bare, prompt(5))
        written(engine, prompt(5), None)
        written(engine, prompt(5), "one")
        assert recorded(engine, False) == recorded(bare, False) < recorded(engine, True)
    finally:
        bare.close()


def test_an_adapter_that_is_not_loaded_is_an_error_that_names_those_that_are(engine: Engine):
    with pytest.raises(ValueError, match="no adapter 'three' beside model; loaded are one, two"):
        engine.submit([1, 2], params(), NO_EOS, adapter="three")


def test_an_adapter_of_another_model_is_an_error_that_names_tensor_and_shape(tmp_path: Path,
                                                                            products: Products):
    model = write_model(tmp_path / "model", hidden_size=96)
    write_peft(tmp_path / "a", products)
    with pytest.raises(ModelLoadError, match=(
            r"a: tensor base_model\.model\.model\.layers\.0\.self_attn\.q_proj\.lora_A\.weight is "
            r"\[5, 64\]; expected \[rank, 96\] beside model")):
        load(model, adapters=[("a", tmp_path / "a")])


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens", "model.layers.7.self_attn.q_proj",
                                    "model.layers.0.mlp.experts.0.up_proj", "vision.layers.0.q_proj"])
def test_modules_that_can_have_no_adapter_are_named(tmp_path: Path, module: str):
    model = write_model(tmp_path / "model")
    sizes = {"model.layers.0.self_attn.q_proj": (64, 64), module: (64, 64)}
    write_peft(tmp_path / "a", random_products(sizes))
    expected = rf"belongs to '{module}', which is no Linear .* such as model\.layers\.0\.self_attn\.q_proj, "
    with pytest.raises(ModelLoadError, match=expected):
        load(model, adapters=[("a", tmp_path / "a")])


def test_a_gguf_adapter_of_another_architecture_is_refused(tmp_path: Path, products: Products):
    model = write_model(tmp_path / "model")
    adapter = write_gguf_adapter(tmp_path / "a.gguf", products, TINY, 1.0,
                                 **{"general.architecture": "qwen3"})
    with pytest.raises(ModelLoadError, match=r"general\.architecture is 'qwen3'; model is llama: expected l"):
        load(model, adapters=[("a", adapter)])


# ---- while the model is loaded -------------------------------------------------------------------------


def test_an_adapter_that_is_loaded_later_writes_what_it_would_from_the_start(
        folders: tuple[Path, list[tuple[str, Path]]], engine: Engine):
    """Beside replies that are being written, which do not change, in steps that are recorded already; the
    second adds to Linears that the first leaves alone."""
    (one, path_of_one), (two, path_of_two) = folders[1]
    later = load(folders[0], prefill_chunk=32)
    try:
        running = later.submit(prompt(9), params(max_new_tokens=60), NO_EOS)
        later.load_adapter(two, path_of_two)
        asked = [(prompt(9), two), (prompt(40), two), (prompt(9), None), (prompt(9), two)]
        want = [written(engine, ids, name, max_new_tokens=60) for ids, name in asked]
        assert [written(later, ids, name, max_new_tokens=60) for ids, name in asked] == want
        assert outcome(running)[0] == want[2]
        running = later.submit(prompt(9), params(max_new_tokens=60), NO_EOS, adapter=two)
        later.load_adapter(one, path_of_one)
        assert later.describe()["adapters"] == ["two", "one"]
        assert later.describe()["adapter_fingerprints"] == engine.describe()["adapter_fingerprints"]
        for _ in range(3):
            assert written(later, prompt(9), one, max_new_tokens=60) == written(
                engine, prompt(9), one, max_new_tokens=60)
        assert outcome(running)[0] == want[0]
        assert [written(later, ids, name, max_new_tokens=60) for ids, name in asked] == want
    finally:
        later.close()


def test_an_adapter_that_is_unloaded_is_there_until_its_replies_are_written(
        folders: tuple[Path, list[tuple[str, Path]]], engine: Engine):
    """Then its number is the next one's, which takes nothing of what the cache has of it."""
    (one, _), (two, path_of_two) = folders[1]
    later, ids = load(folders[0], adapters=folders[1], prefill_chunk=32), prompt(70)
    want, of_two = (written(engine, ids, name, max_new_tokens=80) for name in (one, two))
    try:
        running = later.submit(ids, params(max_new_tokens=80), NO_EOS, adapter=one)
        later.unload_adapter(one)
        with pytest.raises(ValueError, match="no adapter 'one' beside model; loaded are two"):
            later.submit(ids, params(), NO_EOS, adapter=one)
        later.load_adapter("three", path_of_two)
        assert outcome(running)[0] == want
        assert written(later, ids, "three", max_new_tokens=80) == of_two
        later.load_adapter("four", path_of_two)
        key = later._adapters.key("four", "")
        assert (key.number, key.serial) == (0, 3)
        got, end = outcome(later.submit(ids, params(max_new_tokens=80), NO_EOS, adapter="four"))
        assert got == of_two and end.stats.cached_tokens == 0
        for name in ("two", "three", "four"):
            later.unload_adapter(name)
        assert written(later, ids, None) == written(engine, ids, None)
        first = next(iter(later._adapter_changes._network._linears.values())).set_adapter.__self__
        assert not first.adapters.numbers, "nothing is held of those that have gone"
    finally:
        later.close()


def test_what_cannot_be_loaded_beside_a_model_changes_nothing(folders: tuple[Path, list[tuple[str, Path]]],
                                                              engine: Engine, tmp_path: Path):
    before = written(engine, prompt(9), "one")
    other = write_peft(tmp_path / "other", random_products({"model.layers.0.self_attn.q_proj": (64, 32)}))
    with pytest.raises(ModelLoadError, match=r"is \[4, 32\]; expected \[rank, 64\] beside model"):
        engine.load_adapter("other", other)
    with pytest.raises(ModelLoadError, match=r"adapter_config\.json"):
        engine.load_adapter("none", tmp_path)
    with pytest.raises(ValueError, match="an adapter one is loaded already"):
        engine.load_adapter("one", folders[1][0][1])
    with pytest.raises(ValueError, match="an adapter is called ''"):
        engine.load_adapter("", folders[1][0][1])
    with pytest.raises(ValueError, match="There is no adapter 'other' beside model; loaded are one, two"):
        engine.unload_adapter("other")
    assert engine.describe()["adapters"] == ["one", "two"] and written(engine, prompt(9), "one") == before
    assert not engine._adapters.is_there(AdapterKey(2, 2))
