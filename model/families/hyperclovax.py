"""HyperCLOVA X SEED Think: Granite's multipliers, the last of which multiplies logits, and norms after both
branches as well.
"""

from __future__ import annotations

from dataclasses import replace

from model.families import granite
from model.families.family import Family
from model.families.fields import Fields, head_sizes
from model.families.names import HUGGING_FACE
from model.families.spec import Spec


def from_config(fields: Fields) -> Spec:
    fields = fields.with_defaults(attention_multiplier=head_sizes(fields)[2] ** -0.5)
    found, is_after = granite.from_config(fields), fields.boolean("use_post_norm", True)
    return replace(found, logit_scale=fields.number("logits_scaling", 1e-6, 1e6, 1.0), layers=tuple(
        replace(layer, norm_after=is_after) for layer in found.layers))


FAMILIES = (Family("hyperclovax", ("HyperCLOVAXForCausalLM",), from_config, replace(
    HUGGING_FACE, attention_out_norm="post_norm1", mlp_out_norm="post_norm2")),)
