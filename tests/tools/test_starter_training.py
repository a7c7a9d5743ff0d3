"""Training the starter: tokenizer, batches, optimizer, and a few steps of a tiny network."""

import json
import math

import pytest
import torch

from tools.starter.batches import CONTEXT_WEIGHT, to_batch, weigh
from tools.starter.corpus import Document, documents
from tools.starter.muon import orthogonalize
from tools.starter.network import Shape, StarterNetwork, attend
from tools.starter.tokenizer import Encoder, train_tokenizer
from tools.train_starter import CALIBRATION_SEED, HELD_OUT_SEED, TrainConfig, Trainer, schedule, write_corpus

TINY = Shape(
    hidden_size=64,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=32,
)


@pytest.fixture(scope="module")
def tokenizer_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.model"
    train_tokenizer(path, seed=7, num_documents=2500)
    return path


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_tokenizer_gives_every_text_back(tokenizer_path):
    encoder = Encoder(tokenizer_path)
    texts = [document.text for document in documents(11, 40)] + [
        "<s><|user|>  two  spaces, ünïcödé, 猫, 🐈‍⬛ and \n a break</s>"
    ]
    for text in texts:
        plain_parts = text.replace("<s>", "").replace("</s>", "")
        for symbol in ("<|system|>", "<|user|>", "<|assistant|>"):
            plain_parts = plain_parts.replace(symbol, "")
        tokens = [token for token in encoder.encode(text) if token not in encoder.special.values()]
        assert encoder.pieces.decode(tokens) == plain_parts
    assert encoder.pieces.get_piece_size() == 4096
    assert [
        encoder.special[token] for token in ("<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>")
    ] == [1, 2, 3, 4, 5]


def test_only_replies_and_their_ends_count_fully(tokenizer_path):
    encoder = Encoder(tokenizer_path)
    ids, weights = weigh(
        encoder, Document("<s><|system|>Be.</s><|user|>Hi</s><|assistant|>Hello!</s>", "chat")
    )
    start = ids.index(encoder.special["<|assistant|>"])
    assert all(weight == CONTEXT_WEIGHT for weight in weights[: start + 1])
    assert all(weight == 1.0 for weight in weights[start + 1 :]) and ids[-1] == encoder.special["</s>"]


def test_a_batch_is_padded_at_the_right_and_padding_weighs_nothing():
    tokens, weights = to_batch([([1, 9], [0.1, 1.0]), ([1, 9, 9], [0.1, 1.0, 1.0])])
    assert tokens.shape == weights.shape == (2, 9)
    assert tokens[0, :2].tolist() == [1, 9] and weights[0, 2:].sum() == 0


def test_the_network_is_transformers_llama():
    from transformers import LlamaConfig, LlamaForCausalLM  # seconds, which no collection should take

    torch.manual_seed(0)
    network = StarterNetwork(TINY)
    llama = LlamaForCausalLM(LlamaConfig(**TINY.to_config(1, 2)))
    missing = llama.load_state_dict(network.state_dict(), strict=False)
    assert missing.missing_keys == ["lm_head.weight"] and not missing.unexpected_keys
    llama.tie_weights()
    tokens = torch.randint(0, 4096, (2, 33))
    with torch.no_grad():
        torch.testing.assert_close(network(tokens), llama(tokens).logits, rtol=1e-4, atol=1e-5)


def test_attention_in_plain_operations_is_torchs_own():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 2, 17, 32).unbind(0)
    torch.testing.assert_close(
        attend(q, k, v), torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    )


@pytest.mark.parametrize("shape", [(8, 20), (20, 8), (16, 16)])
def test_orthogonalizing_brings_all_singular_values_near_one(shape):
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalize(torch.randn(shape)).float())
    assert values.min() > 0.4 and values.max() < 1.4


def test_the_schedule_warms_up_and_ends_low():
    assert schedule(0.0) < 0.05 and math.isclose(schedule(0.02), 1.0) and schedule(1.0) < 0.03


def test_a_tiny_training_learns_saves_and_goes_on(tmp_path, tokenizer_path):
    """A few seconds: the loss falls, every file is there, and --resume takes up the step count."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "tokenizer.model").write_bytes(tokenizer_path.read_bytes())
    config = TrainConfig(steps=16, out=out, tokens_per_batch=1024, shape=TINY)
    trainer = Trainer(config)
    before = trainer.evaluate()["held_out_loss"]
    trainer.run()
    log = json.loads((out / "training_log.json").read_text())
    assert log["rows"][-1]["held_out_loss"] < before - 0.3
    files = {path.name for path in out.iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.model",
        "tokenizer_config.json",
        "generation_config.json",
        "loss.png",
    } <= files
    again = Trainer(TrainConfig(out=out, resume=True, shape=TINY))
    assert again.log.steps == log["steps"] == 16


def test_held_out_and_calibration_text_are_different_documents(tmp_path):
    write_corpus(tmp_path / "held_out.txt", HELD_OUT_SEED, 20_000)
    write_corpus(tmp_path / "calibration.txt", CALIBRATION_SEED, 20_000)
    held_out, calibration = (
        (tmp_path / name).read_text().split("<s>") for name in ("held_out.txt", "calibration.txt")
    )
    assert len(held_out) > 10 and not set(held_out[1:]) & set(calibration[1:])
