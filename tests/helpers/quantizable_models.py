"""Random Llama folders with a byte tokenizer, and a text for them: what the quantizer's tests work on."""

import torch

HIDDEN, INNER, LAYERS, VOCAB = 64, 88, 2, 300  # 88 / 32 leaves a ragged last group
WORDS = ["the", "a", "room", "chat", "model", "of", "and", "speaks", "quick", "Marlow", "says", "not"]


def byte_tokenizer():
    """One token a byte, with <s> (1) and </s> (2) in front; the text of a tokenizer.json."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {name: i for i, name in enumerate(["<unk>", "<s>", "</s>", *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in ("<unk>", "<s>", "</s>")])
    return tokenizer.to_str()


def make_llama(folder, seed=0, max_shard_size="5GB", **changes):
    """A random Llama with strong enough layers that their errors are seen in the logits; also returned."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings = {
        "vocab_size": VOCAB, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "initializer_range": 0.2, "bos_token_id": 1, "eos_token_id": 2, **changes}
    torch.manual_seed(seed)
    model = LlamaForCausalLM(LlamaConfig(**settings))
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    model.to(torch.bfloat16).save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "tokenizer.json").write_text(byte_tokenizer(), encoding="utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()  # its RoPE never was bf16


def write_text(path):
    """Words in random order: about 11,000 characters, in documents."""
    picks = torch.randint(0, len(WORDS), (2400,), generator=torch.Generator().manual_seed(5)).tolist()
    text = " ".join(WORDS[i] for i in picks)
    documents = [text[i:i + 300] for i in range(0, len(text), 300)]
    path.write_text("".join(f"<s>{document}</s>" for document in documents), encoding="utf-8")
    return path
