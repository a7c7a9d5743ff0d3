"""Which layers go to which device when a model is spread over several.

Knows sizes only: no tensors, no devices.
"""

from __future__ import annotations

from collections.abc import Sequence

from model.files import ModelLoadError


def layers_by_share(shares: Sequence[float], num_layers: int, first_bytes: int = 0, layer_bytes: int = 1,
                    last_bytes: int = 0) -> list[int]:
    """How many layers each device gets, so that what lies on it is in proportion to its share.

    shares                   like 20,20: the memory of each device that the model may use, in any unit
    first_bytes, last_bytes  what the first device holds besides its layers (embeddings), and the last (head)

    Raises ModelLoadError if there are more devices than layers.
    """
    if len(shares) > num_layers:
        raise ModelLoadError(f"--gpu-split names {len(shares)} GPUs for {num_layers} layers; name fewer.")
    total = first_bytes + num_layers * layer_bytes + last_bytes
    counts: list[int] = []
    for index in range(len(shares)):
        end = total * sum(shares[:index + 1]) / sum(shares)
        reached = num_layers if index == len(shares) - 1 else round((end - first_bytes) / layer_bytes)
        least, most = sum(counts) + 1, num_layers - (len(shares) - 1 - index)  # at least one layer each
        counts.append(min(max(reached, least), most) - sum(counts))
    return counts
