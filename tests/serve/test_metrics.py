"""Metrics of several replicas: each sample once, by the name of its replica."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client.parser import text_string_to_metric_families

from serve.metrics import of_all

TEXT = """# HELP vllm:prompt_tokens_total Tokens of prompts.
# TYPE vllm:prompt_tokens_total counter
vllm:prompt_tokens_total{model_name="starter \\"x\\"",engine="0"} %d.0
# HELP vllm:e2e_seconds How long.
# TYPE vllm:e2e_seconds histogram
vllm:e2e_seconds_bucket{le="1.0"} 2.0
vllm:e2e_seconds_bucket{le="+Inf"} %d.0
vllm:e2e_seconds_count %d.0
vllm:e2e_seconds_sum 4.5
"""


def test_every_sample_stands_under_its_family_with_the_replica_it_is_of():
    text = of_all({"a": TEXT % (3, 4, 4), "b": TEXT % (5, 6, 6)}).decode()
    assert text.count("# TYPE vllm:prompt_tokens_total counter") == 1
    assert text.count("# TYPE vllm:e2e_seconds histogram") == 1
    found = [(sample.name, sample.labels, sample.value)
             for family in text_string_to_metric_families(text) for sample in family.samples]
    for replica, value in (("a", 3), ("b", 5)):
        labels = {"model_name": 'starter "x"', "engine": "0", "replica": replica}
        assert ("vllm:prompt_tokens_total", labels, value) in found
    assert ("vllm:e2e_seconds_bucket", {"le": "+Inf", "replica": "b"}, 6) in found
    assert ("vllm:e2e_seconds_sum", {"replica": "a"}, 4.5) in found
    assert len(found) == 10


def test_without_a_replica_there_is_nothing():
    assert of_all({}) == b""
