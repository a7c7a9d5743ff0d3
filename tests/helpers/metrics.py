"""What a server answers at /metrics, read by Prometheus' own parser."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def values(text: str) -> dict[tuple[str, ...], float]:
    """(name, the values of its labels but for model and engine) -> the number."""
    return {(sample.name, *(value for name, value in sorted(sample.labels.items())
                            if name not in ("model_name", "engine"))): sample.value
            for family in text_string_to_metric_families(text) for sample in family.samples}
