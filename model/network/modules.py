"""Which matrices a layer has, under which names and of what sizes."""

from __future__ import annotations

from dataclasses import dataclass

from model.families.names import Names
from model.families.spec import Attention, Dense, LayerInputs, Mixer, Moe, Spec


@dataclass(frozen=True)
class Group:
    """Modules of one input, that become one Linear."""

    modules: dict[str, int]  # name -> its number of outputs
    k: int                   # inputs
    has_bias: bool = False   # each of them must have one
    is_exact: bool = False   # never rounded to integers: its errors would weigh too much

    @property
    def n(self) -> int:
        return sum(self.modules.values())


def layer_modules(spec: Spec, names: Names, index: int) -> list[Group]:
    """Of layer `index`: its mixers' first, then its mlp's."""
    layer, prefix = spec.layers[index], names.layer.format(index)
    groups = [group for mixer in layer.mixers
              for group in mixer_modules(mixer, names, prefix, spec.hidden_size)]
    groups += mlp_modules(layer.mlp, names, prefix, spec.hidden_size)
    return groups + layer_input_modules(spec.layer_inputs, names, prefix, spec.hidden_size)


def mixer_modules(mixer: Mixer, names: Names, prefix: str, hidden: int) -> list[Group]:
    """Of attention qkv and o."""
    assert isinstance(mixer, Attention)
    sizes = mixer.projected
    qkv = names.qkv if len(names.qkv) == 1 else names.qkv[:len(sizes)]
    return [Group(_modules(prefix, qkv, sizes), hidden, mixer.qkv_bias),
            Group({prefix + names.o_proj: hidden}, mixer.query_size, mixer.o_bias)]


def mlp_modules(mlp: Dense | Moe | None, names: Names, prefix: str, hidden: int) -> list[Group]:
    """gate_up and down; of a mixture the router, gate_up and down of each expert and of the shared one, and
    its gate."""
    def dense(of: Dense, gate_up: tuple[str, ...], down: str) -> list[Group]:
        up = (of.intermediate_size,) * (of.up_size // of.intermediate_size)
        return [Group(_modules(prefix, gate_up, up), hidden, of.bias),
                Group({prefix + down: hidden}, of.intermediate_size, of.bias)]

    if mlp is None:
        return []
    if isinstance(mlp, Dense):
        return dense(mlp, names.gate_up, names.down_proj)
    groups = [Group({prefix + names.router: mlp.num_experts}, hidden, mlp.router_bias, is_exact=True)]
    for expert in range(mlp.num_experts):
        groups += dense(mlp.expert, tuple(name.format(expert) for name in names.expert_gate_up),
                        names.expert_down.format(expert))
    if mlp.shared is not None:
        groups += dense(mlp.shared, names.shared_gate_up, names.shared_down)
    if mlp.shared_gate:
        groups.append(Group({prefix + names.shared_gate: 1}, hidden, is_exact=True))
    return groups


def layer_input_modules(inputs: LayerInputs | None, names: Names, prefix: str, hidden: int) -> list[Group]:
    """The gate and the product after it."""
    if inputs is None:
        return []
    return [Group({prefix + names.input_gate: inputs.size}, hidden),
            Group({prefix + names.input_out: hidden}, inputs.size)]


def input_projection(spec: Spec, inputs: LayerInputs, names: Names) -> Group:
    """Embeddings to the inputs of all layers."""
    return Group({names.layer_inputs_projection: spec.num_layers * inputs.size}, spec.hidden_size)


def _modules(prefix: str, of: tuple[str, ...], sizes: tuple[int, ...]) -> dict[str, int]:
    """One for each size, or one for all of them together."""
    sizes = sizes if len(of) == len(sizes) else (sum(sizes),)
    return {prefix + name: size for name, size in zip(of, sizes, strict=True)}
