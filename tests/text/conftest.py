"""What tests of templates share."""

from __future__ import annotations

import pytest

from model.text.chat_template import ChatTemplate
from model.text.template_process import TemplateLimits, TemplateProcess
from model.text.tokenizer import Tokenizer
from tests.helpers.family_templates import FAMILIES, family_folder


@pytest.fixture(scope="module")
def process():
    """Where templates are rendered; it gives them time, for a busy machine is slow."""
    process = TemplateProcess(TemplateLimits(seconds=20))
    yield process
    process.close()


@pytest.fixture(scope="module")
def families(tmp_path_factory, process):
    """name -> (the family, its tokenizer, its ChatTemplate, its folder)."""
    found = {}
    for name, family in FAMILIES.items():
        folder = family_folder(tmp_path_factory.mktemp(name), name)
        tokenizer = Tokenizer.load(folder)
        found[name] = (family, tokenizer, ChatTemplate(family.template, name, tokenizer, process), folder)
    return found
