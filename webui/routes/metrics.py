"""What the engine has done, in Prometheus' words.

The names are vLLM's wherever the meaning is the same, its prefix included, so that dashboards made for it
show Parlor: https://docs.vllm.ai/en/stable/usage/metrics/. Knows names and labels; the engine counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from model import ModelSlot

LABELS = ("model_name", "engine")
ENGINE = "0"  # vLLM numbers several
REASONS = {"eos": "stop", "stop": "stop", "length": "length", "context": "length", "cancelled": "abort",
           "failed": "error"}
GAUGES = (
    ("num_requests_running", "Requests that are being computed."),
    ("num_requests_waiting", "Requests that wait for their turn."),
    ("kv_cache_usage_perc", "Share of the cache's pages that are in use, 0 to 1."))
COUNTERS = (
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts."),
    ("prompt_tokens_cached", "cached_tokens", "Of these, found in the cache."),
    ("prefix_cache_queries", "prompt_tokens", "Tokens looked for in the cache."),
    ("prefix_cache_hits", "cached_tokens", "Tokens found there."),
    ("generation_tokens", "new_tokens", "Tokens written."))
HISTOGRAMS = (
    ("time_to_first_token_seconds", "first_token_seconds", "From a request to its first token."),
    ("inter_token_latency_seconds", "between_tokens_seconds", "From each token to the next."),
    ("request_time_per_output_token_seconds", "token_seconds", "The mean of that, of each request."),
    ("e2e_request_latency_seconds", "request_seconds", "From a request to its end."),
    ("request_queue_time_seconds", "waiting_seconds", "From a request to its first step."),
    ("request_prefill_time_seconds", "prompt_seconds", "From there to the first token."),
    ("request_decode_time_seconds", "decode_seconds", "From there to the last token."),
    ("request_prompt_tokens", "request_prompt_tokens", "Tokens of a request's prompt."),
    ("request_generation_tokens", "request_new_tokens", "Tokens written for a request."),
    ("iteration_tokens_total", "step_tokens", "Tokens computed in a step."))
"""(vLLM's name, the Tally's, what it is)"""


def exposition(slot: ModelSlot) -> tuple[bytes, str]:
    """(the text, its type). The oldest form, which every Prometheus reads: in the newer ones the library
    writes an underscore for the colon unless it is asked not to."""
    registry = CollectorRegistry()
    for collector in (ProcessCollector, PlatformCollector, GCCollector):
        collector(registry=registry)
    registry.register(_Engines(slot))
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4


class _Engines(Collector):
    """The model that is loaded, and those that were."""

    def __init__(self, slot: ModelSlot) -> None:
        self._slot = slot

    def collect(self) -> Iterator[Metric]:
        yield from self._now()
        done = [((name, ENGINE), tally) for name, tally in self._slot.tallies().items()]
        for name, ours, help_ in COUNTERS:
            counter = CounterMetricFamily(f"vllm:{name}", help_, labels=LABELS)
            for labels, tally in done:
                counter.add_metric(labels, getattr(tally, ours))
            yield counter
        ended = CounterMetricFamily("vllm:request_success", "Requests that have ended.",
                                    labels=(*LABELS, "finished_reason"))
        for labels, tally in done:
            for reason in dict.fromkeys(REASONS.values()):
                number = sum(count for ours, count in tally.finished.items() if REASONS[ours] == reason)
                ended.add_metric((*labels, reason), number)
        yield ended
        for name, ours, help_ in HISTOGRAMS:
            family = HistogramMetricFamily(f"vllm:{name}", help_, labels=LABELS)
            for labels, tally in done:
                histogram = getattr(tally, ours)
                bounds = map(floatToGoString, (*histogram.bounds, float("inf")))
                family.add_metric(labels, list(zip(bounds, accumulate(histogram.counts), strict=True)),
                                  histogram.total)
            yield family

    def _now(self) -> Iterator[Metric]:
        model = self._slot.model
        families = [GaugeMetricFamily(f"vllm:{name}", help_, labels=LABELS) for name, help_ in GAUGES]
        if model is not None and model.tally() is not None:
            status, labels = model.status(), (model.info()["name"], ENGINE)
            values = (status["running"], status["waiting"], status["pages_used"] / status["pages_total"])
            for family, value in zip(families, values, strict=True):
                family.add_metric(labels, value)
        yield from families
