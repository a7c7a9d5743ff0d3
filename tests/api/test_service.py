"""The metrics of a real server, against a request whose numbers its answer tells."""

from __future__ import annotations

import json

from tests.helpers.api import wait_until
from tests.helpers.metrics import values


def scraped(server):
    return values(server.client().get("/metrics").data.decode())


def asked(server, **body):
    response = server.client().post("/v1/chat/completions", {
        "messages": [{"role": "user", "content": "Who are you, and what do you do all day?"}], **body})
    assert response.status_code == 200, response.data
    return json.loads(response.data)


def test_the_metrics_grow_by_what_a_request_took(starter):
    before = scraped(starter)
    answer = asked(starter, max_tokens=12, seed=3)
    again = asked(starter, max_tokens=3, seed=4, stop=None)
    after = scraped(starter)
    grown = {key: after[key] - before.get(key, 0) for key in after}
    usages = [answer["usage"], again["usage"]]
    assert grown["vllm:prompt_tokens_total",] == sum(usage["prompt_tokens"] for usage in usages)
    assert grown["vllm:prefix_cache_hits_total",] == sum(
        usage["prompt_tokens_details"]["cached_tokens"] for usage in usages) > 0
    new = sum(usage["completion_tokens"] for usage in usages)
    assert grown["vllm:generation_tokens_total",] == new
    assert grown["vllm:inter_token_latency_seconds_count",] == new - 2
    for name in ("time_to_first_token", "e2e_request_latency", "request_queue_time"):
        assert grown[f"vllm:{name}_seconds_count",] == 2
    ends = [one["choices"][0]["finish_reason"] for one in (answer, again)]
    for reason in ("stop", "length", "abort", "error"):
        assert grown["vllm:request_success_total", reason] == ends.count(reason)
    assert after["vllm:num_requests_running",] == 0


def test_a_reply_that_a_stop_string_ended_counts_as_one(starter):
    text = asked(starter, max_tokens=12, seed=3)["choices"][0]["message"]["content"]
    before = scraped(starter)
    asked(starter, max_tokens=500, seed=3, stop=text[4:8])  # so many that none ends for their number
    ended = "vllm:request_success_total", "stop"
    wait_until(lambda: scraped(starter)[ended] == before[ended] + 1)  # its reader knows the end first
    after = scraped(starter)
    assert after["vllm:request_success_total", "abort"] == before["vllm:request_success_total", "abort"]
