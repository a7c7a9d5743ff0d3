"""The Python examples of the README, run as they stand, on a small random model in place of `starter`."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from tests.helpers.text_samples import write_chat_model

README = Path(__file__).parent.parent / "README.md"


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_readmes_python_examples_run(tmp_path, monkeypatch, capsys):
    blocks = python_blocks(README.read_text(encoding="utf-8"))
    assert any("from model import" in block for block in blocks), "no Python example in README.md"
    write_chat_model(tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert capsys.readouterr().out
    assert names["logits"].shape == (len(names["token_ids"]), 512)
    assert names["logits"].dtype == torch.float32 and len(names["two"]) == 2
