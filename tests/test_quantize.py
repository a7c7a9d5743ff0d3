"""The GPTQ quantizer: packing by hand, its algebra on random matrices, and whole runs on tiny models.

The reader here is written from the format's description alone (a string of bits), so that the packer is not
checked with its own inverse.
"""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.config import ModelConfig, ModelLoadError
from model.quantize import QuantizeOptions, layers, llama, quantize_folder, run
from model.quantize.__main__ import main
from model.quantize.calibration import make_batches, tokenize_documents
from model.quantize.gptq import (
    GridOptions,
    inverse_factor,
    output_error,
    quantize_gptq,
    quantize_round,
    visiting_order,
)
from model.quantize.packing import check_packable, pack_rows
from model.quantize.source import open_source
from tests.quantizable_models import HIDDEN, INNER, LAYERS, VOCAB, make_llama, write_text


def unpack_by_description(words, bits):
    """Codes [n * 32 / bits, out] of int32 words [n, out]: bits from the lowest up, word after word."""
    columns = []
    for column in words.t().tolist():
        stream = "".join(f"{word & 0xFFFFFFFF:032b}"[::-1] for word in column)
        columns.append([int(stream[i:i + bits][::-1], 2) for i in range(0, len(stream), bits)])
    return torch.tensor(columns).t()


def dequantize_by_description(tensors, name, bits):
    """float32 [out, in] of a GPTQ version 1 linear: zero points are stored minus one."""
    codes = unpack_by_description(tensors[f"{name}.qweight"], bits)
    zeros = unpack_by_description(tensors[f"{name}.qzeros"].t(), bits).t() + 1
    scales = tensors[f"{name}.scales"].float()
    rows = [(codes[k] - zeros[g]) * scales[g] for k, g in enumerate(tensors[f"{name}.g_idx"].tolist())]
    return torch.stack(rows).t()


def correlated_inputs(count, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=generator) / size**0.5
    spread = torch.rand(size, generator=generator) * 3
    return torch.randn(count, size, generator=generator) @ mixing * spread


def random_case(out_features=24, in_features=160, seed=0):
    """A weight [out, in] and the Hessian of correlated inputs."""
    x = correlated_inputs(600, in_features, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    return torch.randn(out_features, in_features, generator=generator), x.t() @ x / len(x)


# ---------------------------------------------------------------- packing


def test_eight_four_bit_codes_make_one_word_lowest_first():
    codes = torch.arange(8).reshape(8, 1)
    assert pack_rows(codes, 4).tolist() == [[0x76543210]]
    assert pack_rows(codes.flip(0), 4).tolist() == [[0x01234567]]
    assert pack_rows(torch.full((8, 1), 15), 4).tolist() == [[-1]]


def test_three_bit_codes_straddle_words_by_hand():
    """Code 10 takes bits 30..32: its two low bits end word 0, its high bit begins word 1."""
    codes = torch.zeros(32, 1, dtype=torch.int64)
    codes[10] = 0b110
    assert [word & 0xFFFFFFFF for word in pack_rows(codes, 3).flatten().tolist()] == [0b10 << 30, 1, 0]


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("rows", [32, 96])
def test_packed_codes_are_read_back_by_the_formats_description(bits, rows):
    codes = torch.randint(0, 1 << bits, (rows, 5), generator=torch.Generator().manual_seed(bits))
    words = pack_rows(codes, bits)
    assert words.shape == (rows * bits // 32, 5)
    assert torch.equal(unpack_by_description(words, bits), codes)


def test_rows_that_fill_a_word_but_not_a_whole_block_of_32():
    codes = torch.randint(0, 16, (40, 3), generator=torch.Generator().manual_seed(1))
    assert torch.equal(unpack_by_description(pack_rows(codes, 4), 4), codes)


def test_sizes_that_fill_no_whole_words_are_refused():
    check_packable(8, 16, 4)
    with pytest.raises(ValueError, match=r"12 inputs of 4 bits .* multiple of 8"):
        check_packable(12, 16, 4)
    with pytest.raises(ValueError, match=r"48 outputs of 3 bits .* multiple of 32"):
        check_packable(64, 48, 3)


# ---------------------------------------------------------------- one matrix


def test_rounding_by_hand():
    """A largest weight of 7.5 gives a scale of 1 (15 steps from -7.5 to 7.5), zero in the middle."""
    weight = torch.tensor([[7.5, -7.5, 0.4, 0.6, -3.2, 2.0, 1.0, -1.0]])
    result = quantize_round(weight, GridOptions(group_size=-1, search=False))
    assert result.scales.tolist() == [[1.0]] and result.zeros.tolist() == [[8]]
    assert result.codes.flatten().tolist() == [15, 0, 8, 9, 5, 10, 9, 7]  # 7.5 is cut to +7, -7.5 is -8
    assert result.dequantize().tolist() == [[7, -8, 0, 1, -3, 2, 1, -1]]


def test_the_error_of_a_column_is_made_good_by_the_next_one_by_hand():
    """Two inputs that are always equal: what the first code loses the second one wins back."""
    hessian = torch.ones(2, 2)
    weight = torch.tensor([[0.4, 7.5]])
    result = quantize_gptq(weight, hessian, GridOptions(bits=8, group_size=-1, search=False, damping=1e-6))
    scale = float(result.scales[0, 0])
    assert abs(float(result.dequantize().sum()) - 7.9) <= scale / 2 * 1.01


@pytest.mark.parametrize("options", [
    GridOptions(), GridOptions(search=False), GridOptions(group_size=32, symmetric=False),
    GridOptions(act_order=True), GridOptions(bits=3, group_size=-1), GridOptions(bits=2, group_size=32),
    GridOptions(bits=8, group_size=128)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
def test_gptq_changes_the_outputs_less_than_rounding(options, seed):
    weight, hessian = random_case(seed=seed * 10)
    gptq = quantize_gptq(weight, hessian, options).dequantize()
    rounded = quantize_round(weight, options).dequantize()
    assert output_error(weight, gptq, hessian) < 0.8 * output_error(weight, rounded, hessian)


def test_uncorrelated_inputs_leave_nothing_to_make_good():
    """With a diagonal Hessian GPTQ is rounding."""
    weight, _ = random_case()
    options = GridOptions(search=False)
    gptq, rounded = quantize_gptq(weight, torch.eye(160), options), quantize_round(weight, options)
    assert torch.equal(gptq.codes, rounded.codes) and torch.equal(gptq.scales, rounded.scales)


def test_blocks_and_groups_agree_with_the_plain_algorithm_of_the_paper():
    """Column by column with a fresh inverse after each (the paper's equations 2 and 3), in float64."""
    weight, hessian = random_case(out_features=8, in_features=144)
    order, _ = visiting_order(hessian.diagonal(), GridOptions(group_size=48))
    weight, hessian = weight[:, order], hessian[order][:, order]  # now the file's order is the visiting order
    options = GridOptions(group_size=48, search=False, damping=0.01)
    result = quantize_gptq(weight, hessian, options)
    work = weight.double().clone()
    damped = hessian.double() + torch.eye(144) * 0.01 * hessian.double().diagonal().mean()
    for k in range(144):
        if k % 48 == 0:
            scale = (2 * work[:, k:k + 48].abs().amax(1) / 15).half().double()
        quantized = ((work[:, k] / scale).round() + 8).clamp(0, 15).sub(8) * scale
        inverse = torch.linalg.inv(damped[k:, k:])
        work[:, k:] -= torch.outer((work[:, k] - quantized) / inverse[0, 0], inverse[0])
        work[:, k] = quantized
    same = torch.isclose(result.dequantize().double(), work, atol=1e-9)
    assert same.float().mean() > 0.99  # a tie broken by the last bit of float32 moves a code
    assert abs(output_error(weight, result.dequantize(), hessian)
               / output_error(weight, work.float(), hessian) - 1) < 0.02


def test_act_order_is_gptq_on_permuted_columns():
    weight, hessian = random_case()
    order = torch.argsort(hessian.diagonal(), descending=True)
    plain = quantize_gptq(weight[:, order], hessian[order][:, order], GridOptions(group_size=64))
    result = quantize_gptq(weight, hessian, GridOptions(group_size=64, act_order=True))
    assert torch.equal(result.codes[order], plain.codes)
    assert torch.equal(result.scales, plain.scales)
    assert result.g_idx[order].tolist() == [k // 64 for k in range(160)]
    assert torch.equal(result.dequantize()[:, order], plain.dequantize())


def test_without_act_order_groups_stay_together_and_important_columns_come_first():
    importance = torch.tensor([1.0, 2, 3, 4, 9, 8, 7, 6, 5, 10])
    order, groups = visiting_order(importance, GridOptions(group_size=8))
    assert order.tolist() == [9, 8, 4, 5, 6, 7, 3, 2, 1, 0]
    assert groups == [(1, 0, 2), (0, 2, 10)]
    order, groups = visiting_order(importance, GridOptions(group_size=8, act_order=True))
    assert order.tolist() == [9, 4, 5, 6, 7, 8, 3, 2, 1, 0]
    assert groups == [(0, 0, 8), (1, 8, 10)]
    weight, hessian = random_case()
    assert quantize_gptq(weight, hessian, GridOptions()).g_idx.tolist() == [k // 64 for k in range(160)]


def test_the_last_group_may_be_ragged():
    weight, hessian = random_case(in_features=152)
    result = quantize_gptq(weight, hessian, GridOptions(group_size=64))
    assert result.scales.shape == (3, 24)
    assert result.g_idx.tolist() == [k // 64 for k in range(152)]
    alone = quantize_round(weight[:, 128:], GridOptions(group_size=-1))
    whole = quantize_round(weight, GridOptions(group_size=64))
    assert torch.equal(whole.scales[2], alone.scales[0])


def test_zero_points_stay_where_every_reader_agrees():
    """A group without negative weights would have the zero point 0, which version 1 cannot store."""
    weight = torch.rand(8, 64) + 0.5
    weight[4:] *= -1
    result = quantize_round(weight, GridOptions(symmetric=False, search=False))
    assert int(result.zeros.min()) == 1 and int(result.zeros.max()) == 15
    assert (result.dequantize() - weight).abs().max() < 0.11  # one of 15 steps over 1.5


def test_inputs_that_were_always_zero_are_rounded_and_move_nothing():
    x = correlated_inputs(400, 64)
    x[:, [3, 40]] = 0
    weight = random_case(in_features=64)[0]
    result = quantize_gptq(weight, x.t() @ x, GridOptions(group_size=-1))
    step = result.scales[0].float()
    for column in (3, 40):
        inside = weight[:, column].abs() < 7 * step
        off = (result.dequantize()[:, column] - weight[:, column]).abs()
        assert bool(inside.any()) and bool((off <= step / 2 * 1.001)[inside].all())


def test_a_hessian_of_fewer_inputs_than_columns_is_damped():
    x = correlated_inputs(10, 96)
    factor = inverse_factor(x.t() @ x, 0.01)
    damped = (x.t() @ x).double() + torch.eye(96) * 0.01 * float((x.t() @ x).diagonal().mean())
    assert torch.allclose(factor.t() @ factor @ damped, torch.eye(96, dtype=torch.float64), atol=1e-4)


def test_a_hessian_with_nan_is_an_error():
    hessian = torch.eye(16)
    hessian[2, 3] = hessian[3, 2] = float("nan")
    with pytest.raises(ValueError, match="no Cholesky factor"):
        quantize_gptq(torch.randn(8, 16), hessian, GridOptions(group_size=-1))


def test_weights_of_zero_and_weights_beyond_float16():
    weight = torch.zeros(8, 64)
    assert torch.equal(quantize_round(weight, GridOptions()).dequantize(), weight)
    with pytest.raises(ValueError, match="beyond float16's 65504"):
        quantize_round(torch.full((8, 64), 1e6), GridOptions())


@pytest.mark.parametrize("wrong, message", [
    ({"bits": 5}, "bits is 5; expected one of 2, 3, 4, 8"), ({"bits": 0}, "bits is 0"),
    ({"group_size": 0}, "group_size is 0"), ({"damping": 0.0}, "damping is 0.0")])
def test_options_out_of_range_are_errors(wrong, message):
    with pytest.raises(ValueError, match=message):
        GridOptions(**wrong)


# ---------------------------------------------------------------- calibration text


def test_each_bos_of_a_text_begins_a_document(source):
    tokenizer = run.load_tokenizer(open_source(source))
    one, two = tokenizer.encode("Hi", add_bos=False), tokenizer.encode("you\nthere", add_bos=False)
    assert tokenize_documents("<s>Hi</s>\n\n<s>you\nthere\n", tokenizer) == [[1, *one, 2], [1, *two]]
    assert tokenize_documents("you\nthere", tokenizer) == [[1, *two]]
    assert tokenize_documents(" \n", tokenizer) == []


def test_pieces_are_spread_over_the_text_and_filled_up():
    documents = [[1, *[n] * (size - 1)] for n, size in ((5, 30), (6, 20), (7, 45))]
    (batch,) = make_batches(documents, budget=95, length=20)
    assert sorted(batch.is_text.sum(1).tolist()) == [5, 10, 20, 20, 20, 20]
    assert batch.token_ids.shape == (6, 20) and not batch.token_ids[~batch.is_text].any()
    assert sorted(set(batch.token_ids[batch.is_text].tolist())) == [1, 5, 6, 7]
    (half,) = make_batches(documents, budget=48, length=20)
    assert len(half.token_ids) == 3 and {5, 6, 7} < set(half.token_ids.flatten().tolist())
    long = make_batches([[n] * 1000 for n in range(20)], budget=1 << 20, length=1000)
    assert [len(batch.token_ids) for batch in long] == [4] * 5


def test_a_text_of_a_few_tokens_is_an_error():
    assert make_batches([list(range(40))], budget=99, length=64)[0].token_ids.shape == (1, 40)
    with pytest.raises(ValueError, match="has 3 tokens; expected 16"):
        make_batches([[1, 2, 3]], budget=99, length=64)


# ---------------------------------------------------------------- whole runs


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    make_llama(folder)
    return folder


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


def quantize(source, target, text_file, grid=None, **more):
    lines = []
    options = QuantizeOptions(grid=grid or GridOptions(group_size=32), calibration=text_file, samples=16,
                              seq_len=128, **more)
    quantize_folder(source, target, options, progress=lines.append)
    return load_all(target), lines


def load_all(folder):
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def dequantized_model(folder):
    """transformers' Llama in float32 with the weights that the test's own reader finds in a GPTQ folder."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    quantization, tensors = config.pop("quantization_config", None), load_all(folder)
    weights = {name: tensor.float() for name, tensor in tensors.items()
               if name.rpartition(".")[2] not in ("qweight", "qzeros", "scales", "g_idx")}
    for name in [name[:-8] for name in tensors if name.endswith(".qweight")]:
        weights[f"{name}.weight"] = dequantize_by_description(tensors, name, quantization["bits"])
    model = LlamaForCausalLM(LlamaConfig(**config))
    missing, unexpected = model.load_state_dict(weights, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}
    model.tie_weights()
    return model.float().eval()


@torch.no_grad()
def logits(model, ids):
    return model(input_ids=ids).logits


@pytest.fixture(scope="module")
def test_ids(source, text_file):
    tokenizer = run.load_tokenizer(open_source(source))
    documents = tokenize_documents(text_file.read_text(encoding="utf-8"), tokenizer)
    return torch.tensor([document[:200] for document in documents[:2]])


def test_a_run_writes_the_folder_that_other_tools_expect(source, text_file, tmp_path):
    tensors, lines = quantize(source, tmp_path / "out", text_file)
    out = tmp_path / "out"
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    section = config["quantization_config"]
    assert section == json.loads((out / "quantize_config.json").read_text(encoding="utf-8"))
    expected = {"quant_method": "gptq", "checkpoint_format": "gptq", "bits": 4, "group_size": 32, "sym": True,
                "desc_act": False, "lm_head": False}
    assert {name: section[name] for name in expected} == expected
    before = json.loads((source / "config.json").read_text(encoding="utf-8"))
    assert {name: config[name] for name in before} == before
    assert (out / "chat_template.jinja").is_file() and (out / "tokenizer.json").is_file()
    down = "model.layers.1.mlp.down_proj"
    assert tensors[f"{down}.qweight"].shape == (INNER // 8, HIDDEN)
    assert tensors[f"{down}.qzeros"].shape == (3, HIDDEN // 8)
    assert tensors[f"{down}.scales"].shape == (3, HIDDEN) and tensors[f"{down}.scales"].dtype == torch.float16
    assert set(tensors[f"{down}.qzeros"].flatten().tolist()) == {0x77777777}
    assert f"{down}.weight" not in tensors
    untouched = load_all(source)
    for name in ("model.embed_tokens.weight", "lm_head.weight", "model.layers.0.input_layernorm.weight"):
        assert torch.equal(tensors[name], untouched[name]) and tensors[name].dtype == torch.bfloat16
    assert sum(line.startswith("layer ") for line in lines) == LAYERS
    assert not (tmp_path / "out.partial").exists()


def test_the_float_forward_pass_agrees_with_transformers(tmp_path, text_file, monkeypatch):
    """Hidden states behind the last layer, with biases, grouped heads, an own head_dim and llama3 RoPE."""
    scaling = {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 4.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    model = make_llama(tmp_path, attention_bias=True, mlp_bias=True, head_dim=24,
                       rope_parameters=scaling)
    monkeypatch.setattr(layers._LayerPass, "_quantize", lambda *arguments, **more: None)
    source = open_source(tmp_path)
    ids = torch.randint(0, VOCAB, (3, 100), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        hidden = [model.model.embed_tokens(ids[:2]), model.model.embed_tokens(ids[2:, :60])]
        target = [x.clone() for x in hidden]
        for index in range(LAYERS):
            layer = layers._LayerPass(source, index, GridOptions(), 0.5)
            layer.run(hidden, target, [], llama.rope_tables(source.config, 100))
        expected = model.model(input_ids=ids).last_hidden_state
        assert torch.allclose(model.model.norm(hidden[0]), expected[:2], atol=2e-4)
        assert torch.allclose(model.model.norm(hidden[1]), expected[2:, :60], atol=2e-4)
        assert torch.equal(hidden[0], target[0])


def test_what_fills_up_a_batch_changes_nothing(source, text_file, monkeypatch):
    """The same pieces one by one, where none is filled up, give the same sums up to rounding."""
    opened = open_source(source)
    options = QuantizeOptions(calibration=text_file, samples=4, seq_len=64)
    results = []
    for at_once in (4096, 1):
        monkeypatch.setattr("model.quantize.calibration.TOKENS_AT_ONCE", at_once)
        batches = run.read_batches(opened, options, lambda line: None)
        assert (len(batches) == 1) == (at_once == 4096)
        results.append(list(layers.quantize_layers_gptq(opened, batches, GridOptions(), 0.5)))
    for one, other in zip(*results, strict=True):
        assert one.errors == pytest.approx(other.errors, rel=0.01)


@pytest.mark.parametrize("rope", [
    {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.5},
    {"rope_theta": 500000.0, "rope_type": "default"}], ids=["linear", "base 500000"])
def test_rope_tables_agree_with_transformers(tmp_path, rope):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    config = LlamaConfig(hidden_size=64, num_attention_heads=4, rope_parameters=rope,
                         architectures=["LlamaForCausalLM"])
    config.save_pretrained(tmp_path)
    cos, sin = llama.rope_tables(ModelConfig.from_folder(tmp_path), 50)
    expected = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.arange(50)[None])
    assert torch.allclose(torch.cat([cos, cos], 1), expected[0][0], atol=1e-5)
    assert torch.allclose(torch.cat([sin, sin], 1), expected[1][0], atol=1e-5)


@pytest.mark.parametrize("grid", [
    GridOptions(group_size=32), GridOptions(group_size=64, act_order=True),
    GridOptions(group_size=-1, symmetric=False), GridOptions(bits=8, group_size=32)], ids=str)
def test_the_quantized_model_is_nearer_to_the_original_by_gptq_than_by_rounding(
        source, text_file, test_ids, tmp_path, grid):
    """Logits through transformers with weights from the independent reader."""
    expected = logits(dequantized_model(source), test_ids)
    quantize(source, tmp_path / "gptq", text_file, grid)
    plain = GridOptions(bits=grid.bits, group_size=grid.group_size, symmetric=grid.symmetric)
    quantize(source, tmp_path / "round", text_file, plain, method="round")
    errors = [float((logits(dequantized_model(tmp_path / name), test_ids) - expected).square().mean().sqrt())
              for name in ("gptq", "round")]
    assert errors[0] < errors[1]
    assert errors[0] < (0.02 if grid.bits == 8 else 0.5) * float(expected.std())


def test_making_good_earlier_layers_errors_brings_the_logits_nearer(source, text_file, test_ids, tmp_path):
    expected = logits(dequantized_model(source), test_ids)
    errors = []
    for correction in (0.0, 0.5):
        target = tmp_path / str(correction)
        quantize(source, target, text_file, correction=correction)
        errors.append(float((logits(dequantized_model(target), test_ids) - expected).norm()))
    assert errors[1] < 0.95 * errors[0]


def test_the_file_holds_exactly_what_the_error_was_measured_on(source, text_file, tmp_path, monkeypatch):
    """Read back, the weights are bit for bit those that the run went on with."""
    kept = {}
    original = run.quantize_layers_gptq

    def spy(*arguments):
        for layer in original(*arguments):
            kept.update({name: matrix.dequantize() for name, matrix in layer.matrices.items()})
            yield layer

    monkeypatch.setattr(run, "quantize_layers_gptq", spy)
    tensors, _ = quantize(source, tmp_path / "out", text_file, GridOptions(group_size=32, symmetric=False))
    assert len(kept) == 7 * LAYERS
    for name, weight in kept.items():
        assert torch.equal(dequantize_by_description(tensors, name, 4), weight)


def test_sharded_in_and_out_gives_the_same_tensors(source, text_file, tmp_path):
    make_llama(tmp_path / "sharded", max_shard_size="60kB")
    assert len(list((tmp_path / "sharded").glob("model-0*.safetensors"))) > 2
    whole, _ = quantize(source, tmp_path / "whole", text_file)
    parts, _ = quantize(tmp_path / "sharded", tmp_path / "parts", text_file, shard_bytes=1 << 16)
    index = json.loads((tmp_path / "parts" / "model.safetensors.index.json").read_text(encoding="utf-8"))
    assert set(index["weight_map"]) == set(whole) == set(parts)
    assert len(set(index["weight_map"].values())) > 1
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / "parts" / file)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_two_runs_give_the_same_file(source, text_file, tmp_path):
    for name in ("one", "two"):
        quantize(source, tmp_path / name, text_file)
    one, two = (tmp_path / name / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_biases_stay_and_tied_embeddings_stay_tied(tmp_path, text_file):
    make_llama(tmp_path / "in", attention_bias=True, tie_word_embeddings=True)
    tensors, _ = quantize(tmp_path / "in", tmp_path / "out", text_file)
    assert "lm_head.weight" not in tensors
    before = load_all(tmp_path / "in")
    name = "model.layers.0.self_attn.o_proj.bias"
    assert torch.equal(tensors[name], before[name])


def test_the_command_line_from_end_to_end(source, text_file, tmp_path, capsys):
    command = [str(source), str(tmp_path / "out"), "--bits", "4", "--group-size", "32", "--asym",
               "--act-order", "--calibration", str(text_file), "--samples", "4", "--seq-len", "64"]
    assert main(command) == 0
    assert "calibration:" in capsys.readouterr().out
    assert main(command) == 1  # it exists now
    assert "exists already; choose another folder or add --overwrite" in capsys.readouterr().err
    (tmp_path / "out" / "README.md").write_text("mine")
    (tmp_path / "out" / "model-00001-of-00002.safetensors").write_bytes(b"of an older run")
    assert main([*command, "--overwrite"]) == 0
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert "README.md" in kept and [name for name in kept if "safetensors" in name] == ["model.safetensors"]
    capsys.readouterr()
    assert main([str(tmp_path / "out"), str(tmp_path / "again")]) == 1
    assert "quantized already (gptq)" in capsys.readouterr().err
    assert not (tmp_path / "again").exists() and not (tmp_path / "again.partial").exists()


def test_without_a_calibration_file_the_projects_own_texts_are_read(source, tmp_path, capsys):
    assert main([str(source), str(tmp_path / "out"), "--samples", "2", "--seq-len", "32"]) == 0
    assert "Parlor's own README and sources" in capsys.readouterr().out


def test_a_failure_leaves_no_folder_behind(source, tmp_path, text_file):
    broken = tmp_path / "broken"
    make_llama(broken)
    tensors = load_all(broken)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, broken / "model.safetensors")
    with pytest.raises(ModelLoadError, match=r"no tensor model\.layers\.1\.mlp\.up_proj\.weight"):
        quantize(broken, tmp_path / "out", text_file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken"]


def test_a_weight_that_is_not_a_number_is_an_error(tmp_path, text_file):
    make_llama(tmp_path / "in")
    tensors = load_all(tmp_path / "in")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    with pytest.raises(ValueError, match="not finite"):
        quantize(tmp_path / "in", tmp_path / "out", text_file)


@pytest.mark.parametrize("change, message", [
    ({"architectures": ["GPT2LMHeadModel"]}, "architectures is 'GPT2LMHeadModel'; expected one of"),
    ({"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ({"hidden_size": 1 << 40}, "hidden_size is 1099511627776"),
    ({"intermediate_size": 96}, r"\[88, 64\]; expected .* \[96, 64\]"),
    ({"quantization_config": {"quant_method": "awq"}}, r"quantized already \(awq\)"),
])
def test_sources_that_do_not_fit_are_named(source, text_file, tmp_path, change, message):
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, **change}), encoding="utf-8")
    with pytest.raises(ModelLoadError, match=message):
        quantize(copy, tmp_path / "out", text_file)


def test_folders_without_weights_config_or_tokenizer_are_named(tmp_path, source, text_file):
    copy = tmp_path / "copy"
    copy.mkdir()
    for file, message in (("config.json", r"has no config\.json"), ("model.safetensors", "no .*safetensors"),
                          ("tokenizer.json", "no tokenizer")):
        with pytest.raises(ModelLoadError, match=message):
            quantize(copy, tmp_path / "out", text_file)
        shutil.copy(source / file, copy)
    quantize(copy, tmp_path / "out", text_file)


def test_a_layer_that_cannot_be_packed_is_named_before_any_work(tmp_path, source, text_file):
    with pytest.raises(ValueError, match=r"mlp\.gate_proj: 88 outputs of 3 bits"):
        quantize(source, tmp_path / "out", text_file, GridOptions(bits=3))


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for option in ("--bits", "--group-size", "--method", "--act-order", "--asym", "--calibration"):
        assert option in text
