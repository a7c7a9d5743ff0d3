"""Quantizing a folder: calibration text, whole runs on tiny models, the command line and its errors."""

import io
import json
import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from model.files import ModelLoadError
from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.__main__ import main
from model.quantize.calibration import make_batches, tokenize_documents
from model.quantize.gptq import GridOptions
from model.quantize.layers import Walk, Way
from model.quantize.progress import ProgressBar
from model.quantize.source import open_source
from model.quantize.text import load_tokenizer, read_batches
from model.quantize.work import Records
from tests.helpers.family_models import write_family
from tests.helpers.gptq_description import dequantize_by_description
from tests.helpers.quantizable_models import HIDDEN, INNER, LAYERS, make_llama, write_text

# ---------------------------------------------------------------- calibration text


def test_each_bos_of_a_text_begins_a_document(source):
    tokenizer = load_tokenizer(open_source(source))
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
    long = make_batches([[n] * 250 for n in range(20)], budget=1 << 20, length=250)
    assert [len(batch.token_ids) for batch in long] == [2] * 10


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
    tokenizer = load_tokenizer(open_source(source))
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


def test_what_fills_up_a_batch_changes_nothing(source, text_file, tmp_path, monkeypatch):
    """The same pieces one by one, where none is filled up, give the same sums up to rounding; what comes
    after the first layer is further apart, since a rounding decides how it is quantized."""
    opened = open_source(source)
    options = QuantizeOptions(calibration=text_file, samples=4, seq_len=256)  # longer than any document
    results = []
    with torch.inference_mode():
        for at_once in (4096, 1):
            monkeypatch.setattr("model.quantize.calibration.TOKENS_AT_ONCE", at_once)
            batches = read_batches(opened, options, lambda line: None)
            assert (len(batches) == 1) == (at_once == 4096)
            assert all(batch.is_text.all() for batch in batches) == (at_once == 1)
            folder = tmp_path / str(at_once)
            folder.mkdir()
            results.append(list(Walk(opened, batches, folder, GridOptions(), Way()).layers()))
    for layer, (one, other) in enumerate(zip(*results, strict=True)):
        assert one.errors == pytest.approx(other.errors, rel=0.1 if layer else 0.01)


def test_a_layer_that_was_kept_is_gone_before_the_next_one_is_made(source, text_file, tmp_path, monkeypatch):
    kept, alive, add = [], [], Records.add

    def noted(self, index, record, tensors=None):
        kept.extend(weakref.ref(tensor) for tensor in tensors.values())
        add(self, index, record, tensors)

    monkeypatch.setattr(Records, "add", noted)
    monkeypatch.setattr(ProgressBar, "step", lambda bar: alive.append(
        sum(reference() is not None for reference in kept)))
    quantize(source, tmp_path / "out", text_file, GridOptions())
    assert kept and alive == [0, 0] * LAYERS


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
    original = Walk.layers

    def spy(*arguments):
        for layer in original(*arguments):
            kept.update({name: matrix.dequantize() for name, matrix in layer.matrices.items()})
            yield layer

    monkeypatch.setattr(Walk, "layers", spy)
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
    tensors["model.layers.0.mlp.up_proj.weight"][3, 5] = float("nan")
    save_file(tensors, tmp_path / "in" / "model.safetensors")
    with pytest.raises(ValueError, match=r"up_proj\.weight holds NaN"):
        quantize(tmp_path / "in", tmp_path / "out", text_file)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


# ---------------------------------------------------------------- going on


def broken_off(source, target, text_file, monkeypatch, **more):
    """A run that is interrupted in its second layer; returns what it said."""
    lines = []
    original = Walk._layer

    def layer(self, index, tick):
        if index == 1:
            raise KeyboardInterrupt
        return original(self, index, tick)

    with monkeypatch.context() as patched:
        patched.setattr(Walk, "_layer", layer)
        options = QuantizeOptions(grid=GridOptions(group_size=32), calibration=text_file, samples=16,
                                  seq_len=128, **more)
        with pytest.raises(KeyboardInterrupt):
            quantize_folder(source, target, options, progress=lines.append)
    return lines


def test_a_run_that_broke_off_goes_on_and_gives_the_same_file(source, text_file, tmp_path, monkeypatch):
    quantize(source, tmp_path / "whole", text_file)
    lines = broken_off(source, tmp_path / "out", text_file, monkeypatch)
    assert "the same command goes on from there" in lines[-1]
    assert not (tmp_path / "out").exists()
    _, lines = quantize(source, tmp_path / "out", text_file)
    assert f"1 of {LAYERS} layers are done already" in lines
    assert sum(line.startswith("layer ") for line in lines) == LAYERS - 1
    whole, out = (tmp_path / name / "model.safetensors" for name in ("whole", "out"))
    assert whole.read_bytes() == out.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "whole"]


def test_other_settings_do_not_go_on_where_it_broke_off(source, text_file, tmp_path, monkeypatch):
    broken_off(source, tmp_path / "out", text_file, monkeypatch)
    with pytest.raises(FileExistsError, match=r"group_size 32 \(now 16\).*delete it to begin anew"):
        quantize(source, tmp_path / "out", text_file, GridOptions(group_size=16))
    with pytest.raises(FileExistsError, match=r"correction 0.5 \(now 0.0\)"):
        quantize(source, tmp_path / "out", text_file, correction=0.0)
    other = write_text(tmp_path / "text.txt")
    other.write_text(other.read_text(encoding="utf-8").replace("quick", "slow"), encoding="utf-8")
    with pytest.raises(FileExistsError, match="text "):
        quantize(source, tmp_path / "out", other)
    quantize(source, tmp_path / "out", text_file)


def test_a_folder_of_somebody_elses_is_left_alone(source, text_file, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").write_text("mine")
    with pytest.raises(FileExistsError, match="move it away"):
        quantize(source, tmp_path / "out", text_file)
    assert (tmp_path / "out.partial" / "mine").is_file()


def test_the_progress_bar_by_hand():
    """Two of eight steps were done before; one of the other six took 10 seconds."""
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with ProgressBar("layers", 8, 2, terminal) as bar:
        bar.step()
        assert bar.line(10.0) == f"layers [{'#' * 10}{'-' * 18}] 3/8, 0:10, about 0:50 left"
        assert bar.line(3725.0).endswith("3/8, 1:02:05, about 5:10:25 left")
    assert "\r" in terminal.getvalue()
    silent = io.StringIO()
    with ProgressBar("layers", 8, 2, silent) as bar:
        bar.step()
    assert silent.getvalue() == ""


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize("change, message", [
    ({"architectures": ["NobodysForCausalLM"]}, "architectures is 'NobodysForCausalLM'; expected one of"),
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


@pytest.mark.parametrize(("variant", "part"), [
    ("falcon h1", "layers that are not attention"), ("nemotron h", "layers that are not attention"),
    ("deepseek 3", "layers that are not attention"), ("qwen 2 moe", "a mixture of experts"),
    ("gpt-oss", "sinks or chunks of attention"),
    ("gemma 4 small", "inputs of layers")])
def test_models_of_other_parts_are_refused_by_name(tmp_path, variant, part):
    write_family(tmp_path / "in", variant)
    with pytest.raises(ModelLoadError, match=f"has {part}.*, which cannot be quantized yet"):
        open_source(tmp_path / "in")
    if part == "a mixture of experts":
        open_source(tmp_path / "in", rounds=True)


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
