"""tools/perplexity.py: its windows by hand, its numbers against transformers, and the command."""

import json
import math
import shutil

import pytest
import torch

from model import load_model
from model.quantize.calibration import tokenize_documents
from tests.helpers.quantizable_models import VOCAB, make_llama, write_text
from tools.perplexity import Score, documents_within, main, score, table, windows


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("model")
    make_llama(path)
    return path


@pytest.fixture(scope="module")
def text_file(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


def test_windows_by_hand():
    """Every token but the first is scored once; later windows begin half a window further."""
    assert list(windows(5, seq_len=8)) == [(0, 5, 1)]
    assert list(windows(8, seq_len=8)) == [(0, 8, 1)]
    assert list(windows(13, seq_len=8)) == [(0, 8, 1), (4, 12, 8), (8, 13, 12)]
    assert list(windows(1, seq_len=8)) == []


@pytest.mark.parametrize("length", [2, 7, 8, 9, 30, 31, 32, 33])
def test_windows_score_each_token_once_with_half_a_window_of_context(length):
    scored = []
    for begin, end, first in windows(length, seq_len=8):
        assert begin < first < end <= begin + 8 and (begin == 0 or first - begin >= 4)
        scored += range(first, end)
    assert scored == list(range(1, length))


def test_documents_are_cut_to_the_token_limit():
    assert documents_within([[1, 2, 3], [1, 4, 5], [1, 6]], 5) == [[1, 2, 3], [1, 4]]
    assert documents_within([[1, 2, 3], [1], [1, 6]], 100) == [[1, 2, 3], [1, 6]]


def test_comparison_by_hand():
    first = Score("a", "", 0, torch.tensor([1.0, 3.0], dtype=torch.float64), torch.tensor([5, 6]), 0.0)
    other = Score("b", "", 0, torch.tensor([1.2, 3.0], dtype=torch.float64), torch.tensor([5, 7]), 0.0)
    assert first.perplexity == pytest.approx(math.exp(2))
    compared = other.compared_with(first)
    assert compared["change_percent"] == pytest.approx(100 * (math.exp(0.1) - 1))
    assert compared["standard_error_percent"] == pytest.approx(100 * math.exp(0.1) * 0.1)
    assert compared["same_top_token_percent"] == 50
    assert "+10.52% +- 11.05%" in table([first, other])


@torch.no_grad()
def test_the_perplexity_is_that_of_transformers(folder):
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    generator = torch.Generator().manual_seed(0)
    documents = [torch.randint(3, VOCAB, (size,), generator=generator).tolist() for size in (40, 2, 70)]
    with load_model(folder, exact=True, cache="fp32", threads=1) as llm:
        result = score(llm, "test", documents, seq_len=40)
    losses = []
    for document in documents[:2]:
        losses.append(model(input_ids=torch.tensor([document]), labels=torch.tensor([document])).loss
                      * (len(document) - 1))
    for begin, end, first in ((0, 40, 1), (20, 60, 40), (40, 70, 60)):  # the long one, by the definition
        logits = model(input_ids=torch.tensor([documents[2][begin:end]])).logits[0].double().log_softmax(-1)
        losses += [-logits[i - begin - 1, documents[2][i]] for i in range(first, end)]
    assert len(result.losses) == 39 + 1 + 69
    assert float(result.losses.sum()) == pytest.approx(float(sum(losses)), rel=1e-4)


def test_the_command_compares_rounding_and_gptq_with_the_original(folder, text_file, tmp_path, capsys):
    output = tmp_path / "bench" / "perplexity.json"
    command = [str(folder), "--text", str(text_file), "--calibration", str(text_file), "--group-size", "32",
               "--max-tokens", "1500", "--seq-len", "128", "--threads", "1", "--output", str(output)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    report = json.loads(output.read_text(encoding="utf-8"))
    original, rounded, gptq = report["results"]
    assert f"{report['scored_tokens']:,} tokens of" in printed and "GPTQ" in printed
    assert original["quantization"] == "bfloat16"
    assert rounded["quantization"] == gptq["quantization"] == "4-bit GPTQ g32"
    assert gptq["same_top_token_percent"] > rounded["same_top_token_percent"]
    assert all(key in report for key in ("command", "what", "machine", "versions", "text", "seq_len"))
    assert "half a window" in report["what"]


def test_models_of_different_tokenizers_are_not_compared(folder, text_file, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    text = (other / "tokenizer.json").read_text(encoding="utf-8")
    tokenizer = json.loads(text)
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["a"], vocabulary["e"] = vocabulary["e"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    command = [str(folder), str(other), "--text", str(text_file), "--max-tokens", "50", "--threads", "1"]
    assert main(command) == 1
    assert "has another tokenizer than" in capsys.readouterr().err


def test_a_missing_text_or_model_is_one_sentence(folder, tmp_path, capsys):
    assert main([str(folder), str(folder), "--text", str(tmp_path / "none.txt")]) == 1
    assert main([str(tmp_path), str(folder), "--text", str(__file__)]) == 1
    assert capsys.readouterr().err.count("error: ") == 2


def test_a_text_without_bos_is_one_document(folder):
    with load_model(folder, threads=1) as llm:
        (document,) = tokenize_documents("Hello there", llm.tokenizer)
    assert document[0] == 1


def test_one_model_is_compared_with_itself_for_each_kind_of_cache(folder, text_file, tmp_path, capsys):
    output = tmp_path / "cache.json"
    assert main([str(folder), "--text", str(text_file), "--cache", "fp16,q8,q4", "--max-tokens", "200",
                 "--threads", "1", "--output", str(output)]) == 0
    report = json.loads(output.read_text())
    assert report["cache"] == ["fp16", "q8", "q4"]
    labels = [result["model"].split(", ")[1] for result in report["results"]]
    assert labels == ["fp16 cache", "q8 cache", "q4 cache"]
    assert all(abs(result["change_percent"]) < 5 for result in report["results"][1:])
    with pytest.raises(SystemExit):
        main([str(folder), "--text", str(text_file), "--cache", "fp16,q5"])
    assert "'q5' is not one of fp16, q8, q4, fp32" in capsys.readouterr().err
