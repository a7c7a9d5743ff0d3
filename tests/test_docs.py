"""What the README and docs/ say: the Python examples run, what they name is there, the README stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from tests.helpers.text_samples import write_chat_model

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench/README.md",
         *sorted((ROOT / "docs").glob("*.md"))]


def python_blocks(text):
    return re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def test_the_python_examples_of_the_docs_run(tmp_path, monkeypatch, capsys):
    blocks = python_blocks((ROOT / "docs/python.md").read_text(encoding="utf-8"))
    assert any("from model import" in block for block in blocks), "no Python example in docs/python.md"
    write_chat_model(tmp_path / "starter")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in blocks:
        exec(compile(block, "python.md", "exec"), names)
    assert capsys.readouterr().out
    assert names["logits"].shape == (len(names["token_ids"]), 512)
    assert names["logits"].dtype == torch.float32 and len(names["two"]) == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_to_a_file(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}, which is not there"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page):
    """Paths in backticks below a folder of the repository, and modules run by `python -m`."""
    text = page.read_text(encoding="utf-8")
    folders = "webui|model|serve|cpu|cuda|tests|tools|docs|bench|starter"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{page.name} names {path}, which is not there"
    for module in re.findall(r"python -m ((?:model|tools|tests)[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), f"no module {module}"


def test_every_file_that_the_architecture_names_is_there():
    """By its last part: the tree names files beside the folder they lie in."""
    names = {path.name for folder in ("webui", "model", "serve", "cpu", "cuda", "tests", "tools")
             for path in (ROOT / folder).rglob("*.*")} | {path.name for path in ROOT.iterdir()}
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"[\w-]+\.(?:py|js|sh|bat|h|md)\b", text):
        assert name in names, f"docs/architecture.md names {name}, which is not there"


def test_the_readme_is_read_in_a_few_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150
