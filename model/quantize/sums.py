"""What is averaged over the calibration tokens for the matrices of one input."""

from __future__ import annotations

import torch
from torch import Tensor

from model.quantize.decoder import Linears
from model.quantize.gptq import row_blocks


class Sums:
    """Of the inputs x of matrices W [out, in], as the quantized model has them."""

    def __init__(self, linears: Linears, has_missing: bool) -> None:
        k = linears.group.k
        self.linears, self.count = linears, 0
        self.hessian = torch.zeros(k, k)  # of x x^T
        self.sizes = torch.zeros(k)       # of the magnitudes of x
        self.missing = {name: torch.zeros(k, n) for name, n in linears.group.modules.items()} \
            if has_missing else {}        # of x (output in the float model - W x)^T

    def add(self, x: Tensor) -> None:
        """x float32 [tokens, in]"""
        self.hessian.addmm_(x.t(), x)
        self.sizes += x.abs().sum(0)
        self.count += len(x)

    def add_missing(self, x: Tensor, wanted: Tensor, lacking: Tensor | None) -> None:
        """x and wanted (the float model's input) [tokens, in]; lacking: further output [tokens, out]"""
        difference = wanted - x
        for name, weight in self.linears.weights.items():
            for outputs in row_blocks(len(weight)):
                more = difference @ weight[outputs].float().t()
                self.missing[name][:, outputs].addmm_(x.t(), more if lacking is None else
                                                      more.add_(lacking[:, outputs]))

    def average(self) -> None:
        for total in (self.hessian, self.sizes, *self.missing.values()):
            total /= self.count
