"""The engine under load: many requests at once for some seconds, and many starts and stops."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import pytest

from model import load_model
from model.machine import resident_memory
from tests.engine.test_engine import wait_until
from tests.helpers.text_samples import write_chat_model
from tests.helpers.tiny_engine import load, params, prompt, tokens
from tests.soak_engine import soak


def test_every_stream_under_load_is_what_it_is_alone_and_no_page_is_lost(folder: Path):
    """64 at once in a cache for few of them, a quarter cancelled; python -m tests.soak_engine runs longer."""
    engine = load(folder)
    report = soak(engine, seconds=5, in_flight=64, num_requests=40, pages=48)
    engine.close()
    assert report.different == [] and report.failed == []
    assert report.pages_left_in_use == 0
    assert report.finished > 0 and report.cancelled > 0 and report.preempted > 0
    assert report.steps > 0


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0


def test_starting_and_stopping_fifty_times_leaves_nothing_behind(folder: Path):
    def once() -> None:
        engine = load(folder, threads=2)
        tokens(engine, prompt(40), params(max_new_tokens=3))
        engine.close()

    for _ in range(5):
        once()
    threads, files, memory = threading.active_count(), open_files(), resident_memory()
    for _ in range(50):
        once()
    gc.collect()
    wait_until(lambda: threading.active_count() <= threads)
    assert open_files() <= files
    assert resident_memory() - memory < 24 << 20, "each engine has about 3 MB of cache and buffers"


@pytest.mark.skipif(os.name == "nt", reason="counts files as Linux shows them")
def test_starting_and_stopping_with_tokenizer_and_template_leaves_nothing_behind(tmp_path: Path):
    write_chat_model(tmp_path / "small")

    def once() -> None:
        with load_model(tmp_path / "small", threads=1) as llm:
            assert len("".join(llm.stream([{"role": "user", "content": "Hi"}]))) >= 0

    once()
    threads, files = threading.active_count(), open_files()
    for _ in range(4):
        once()
    gc.collect()
    wait_until(lambda: threading.active_count() <= threads)
    assert open_files() <= files
