"""Metrics of all replicas as one exposition: every sample as its replica gave it, with the replica's name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

LABEL = "replica"


def of_all(expositions: Mapping[str, str]) -> bytes:
    """`expositions`: text by replica, in the oldest form. What is summed over LABEL is of all."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Replicas(expositions))
    return generate_latest(registry)


class _Replicas(Collector):
    def __init__(self, expositions: Mapping[str, str]) -> None:
        self._expositions = expositions

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for replica, text in self._expositions.items():
            for found in text_string_to_metric_families(text):
                family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
                for sample in found.samples:
                    family.add_sample(sample.name, {**sample.labels, LABEL: replica}, sample.value)
        yield from families.values()

    def describe(self) -> list[Metric]:
        return []
