"""Muon for the matrices, AdamW for the rest.

Muon: momentum whose matrix is replaced by the nearest orthogonal one (five Newton-Schulz steps), which
learns this network in about half the steps of AdamW alone.
Keller Jordan, https://github.com/KellerJordan/Muon (coefficients from there).
"""

import torch
import torch.distributed
from torch import Tensor, nn


def orthogonalize(matrix: Tensor) -> Tensor:
    """About U V^T of the matrix' singular value decomposition, in bfloat16."""
    x = matrix.bfloat16()
    x = x / (x.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x.T.contiguous() if tall else x


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; for 2-D parameters only.

    With several workers (all holding the same gradients) each orthogonalizes its share of the matrices and
    gets the others' from them.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        rank: int = 0,
        workers: int = 1,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.rank, self.workers = rank, workers

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            parameters = group["params"]
            updates = [torch.zeros_like(parameter, dtype=torch.bfloat16) for parameter in parameters]
            for index, parameter in enumerate(parameters):
                velocity = self.state[parameter].setdefault("velocity", torch.zeros_like(parameter))
                velocity.lerp_(parameter.grad, 1 - group["momentum"])
                if index % self.workers == self.rank:
                    updates[index] = orthogonalize(parameter.grad.lerp(velocity, group["momentum"]))
            if self.workers > 1:
                updates = sum_over_workers(updates)
            for parameter, update in zip(parameters, updates, strict=True):
                scale = max(1.0, parameter.shape[0] / parameter.shape[1]) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)


def sum_over_workers(tensors: list[Tensor]) -> list[Tensor]:
    """The sums of each tensor over the workers, sent as one."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    torch.distributed.all_reduce(flat)
    return [
        part.view_as(tensor)
        for part, tensor in zip(flat.split([tensor.numel() for tensor in tensors]), tensors, strict=True)
    ]


def build_optimizers(
    network: nn.Module, rank: int = 0, workers: int = 1, muon_lr: float = 0.02, adam_lr: float = 3e-3
) -> list[torch.optim.Optimizer]:
    """Muon for what is inside the layers, AdamW for embedding and norms. A schedule scales "base_lr"."""
    inside = [p for name, p in network.named_parameters() if p.ndim == 2 and "embed" not in name]
    rest = [p for name, p in network.named_parameters() if p.ndim != 2 or "embed" in name]
    optimizers: list[torch.optim.Optimizer] = [
        Muon(inside, muon_lr, weight_decay=0.02, rank=rank, workers=workers),
        torch.optim.AdamW(rest, adam_lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["base_lr"] = group["lr"]
    return optimizers
