"""One branch of a layer, mixer or mlp: the norm before it, and how what it gives joins the hidden state."""

from __future__ import annotations

from torch import Tensor

from model.families.spec import Dense, Layer, Mixer, Norm
from model.kernels.operations import Operations
from model.network.linear import Linear, run_mlp
from model.network.norm_weights import NO_WEIGHTS, NormWeights
from model.network.step import Rows

NO_NORM = Norm("none", 0.0)


def norm_is_fused(layer: Layer) -> bool:
    """The products read what is not normed yet, or what needs no norm."""
    return not layer.norm_before or (layer.norm.kind == "rms" and layer.parallel is None)


def adds_directly(layer: Layer, part: Mixer | Dense) -> bool:
    """The last product of a branch adds its result to the hidden state."""
    return not layer.norm_after and layer.residual_scale * part.out_scale == 1


def normalize(ops: Operations, norm: Norm, weights: NormWeights, x: Tensor, out: Tensor, num_groups: int = 1,
              add: bool = False, scale: float = 1.0) -> None:
    """See norm_rows in model/kernels."""
    ops.norm_rows(x, weights.weight, weights.bias, norm.eps, norm.kind, out, num_groups, add, scale)


class Branch:
    """Of one layer, with the weights of the norms before and after it."""

    def __init__(self, ops: Operations, layer: Layer, before: NormWeights | None,
                 after: NormWeights | None) -> None:
        self._ops, self._layer = ops, layer
        self._before, self._after = before, after
        self._norm_is_fused = norm_is_fused(layer)
        self.eps = layer.norm.eps

    def multiply(self, linear: Linear, v: Rows, out: Tensor, epilogue: str = "store", *,
                 of_prompts: bool, precise: int = 0) -> None:
        """A product that reads the hidden state through the norm before. With one norm for both branches it
        is in place already where there is none."""
        x, norm = self.input(v)
        linear(x, out, norm, self.eps, epilogue, of_prompts=of_prompts, precise=precise,
               row_adapters=v.adapters)

    def run_mlp(self, gate_up: Linear, down: Linear, v: Rows, inner: Tensor, mlp: Dense, *,
                of_prompts: bool) -> None:
        """The hidden state through the norm, gate and up, silu and the last product, joined as by `add`. No
        adapter may add to gate and up."""
        x, norm = self.input(v)
        is_direct = adds_directly(self._layer, mlp)
        out, epilogue = (v.hidden, "add") if is_direct else (v.branch, "store")
        run_mlp(gate_up, down, x, inner, out, norm, self.eps, epilogue, of_prompts=of_prompts,
                row_adapters=v.adapters)
        if not is_direct:
            self.add_rows(v, mlp.out_scale)

    def of_prompts(self) -> tuple[Tensor | None, float] | None:
        """The norm before, as a product applies it, with its eps; None where there is more to this branch.
        Whether it adds directly is not looked at."""
        if not self._norm_is_fused or self._layer.norm_after or self._layer.parallel:
            return None
        return self._before.weight if self._before is not None else None, self.eps

    def input(self, v: Rows) -> tuple[Tensor, Tensor | None]:
        """What a product reads, and the norm that it is still to apply."""
        if self._norm_is_fused:
            return v.hidden, self._before.weight if self._before is not None else None
        if self._before is not None:
            self.normalize(self._before, v.hidden, v.normed)
        return v.normed, None

    def read(self, v: Rows) -> Tensor:
        """The hidden state through the norm before, in a buffer of its own."""
        if self._before is not None:
            self.normalize(self._before, v.hidden, v.normed)
        elif not self._layer.norm_before:
            normalize(self._ops, NO_NORM, NO_WEIGHTS, v.hidden, v.normed)
        return v.normed

    def add(self, linear: Linear, x: Tensor, v: Rows, part: Mixer | Dense, *, of_prompts: bool) -> None:
        """The last product; hidden += it, or its norm, times the factors of the layer and of this part."""
        if adds_directly(self._layer, part):
            linear(x, v.hidden, epilogue="add", of_prompts=of_prompts, row_adapters=v.adapters)
            return
        linear(x, v.branch, of_prompts=of_prompts, row_adapters=v.adapters)
        self.add_rows(v, part.out_scale)

    def add_rows(self, v: Rows, scale: float = 1.0) -> None:
        """What lies in v.branch, or its norm, times `scale` and the layer's factor."""
        kind, weights = NO_NORM, NO_WEIGHTS
        if self._after is not None:
            kind, weights = self._layer.after or self._layer.norm, self._after
        normalize(self._ops, kind, weights, v.branch, v.hidden, add=True,
                  scale=self._layer.residual_scale * scale)

    def normalize(self, weights: NormWeights, x: Tensor, out: Tensor) -> None:
        normalize(self._ops, self._layer.norm, weights, x, out)
