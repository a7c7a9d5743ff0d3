"""ExLlama's and ExLlamaV2's own 4-bit products on this GPU, if they can be had: measured, and nothing else.

    python -m tools.gpu_check.peers [--from DIR] --out peers.json

DIR holds their sources, as their repositories have them, in folders exllama and exllamav2; they compile their
extension when they are imported. What cannot be had is said in a line. Same weights' shapes as
tools.gpu_check.speed, several in turn; their launches one by one, since not all of them can be captured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import torch

from model.formats.synthetic import GROUP_SIZE, synthetic_config
from model.kernels.crossover import milliseconds
from model.network.modules import layer_modules
from model.options import path_option

SHAPE = "llama-2-7b"
ROWS = (1, 4, 8, 64)
_WEIGHT_BYTES = 256 << 20

Product = Callable[[torch.Tensor, torch.Tensor], Any]
"""Product(x float16 [m, k], out float16 [m, n])."""


def gptq_parts(n: int, k: int) -> dict[str, torch.Tensor]:
    """A GPTQ checkpoint's tensors of random codes."""
    groups = k // GROUP_SIZE
    sizes = {"qweight": (k // 8, n), "qzeros": (groups, n // 8)}
    parts = {name: torch.randint(-(1 << 31), 1 << 31, size, device="cuda").int()
             for name, size in sizes.items()}
    return {**parts, "scales": torch.full((groups, n), 0.01, dtype=torch.float16, device="cuda")}


def exllama(shapes: list[tuple[int, int]]) -> Callable[[int, int], Product]:
    """Makes weights for its q4_matmul. Raises whatever its import does."""
    cuda_ext = importlib.import_module("cuda_ext")
    extension = cuda_ext.exllama_ext
    extension.set_tuning_params(8, 2, 8, False, False, False, False, False, False)  # its defaults
    widest, largest = max(max(shape) for shape in shapes), max(n * k for n, k in shapes)
    buffers = (torch.zeros(2048, widest, dtype=torch.float16, device="cuda"),
               torch.zeros(4, widest, dtype=torch.float16, device="cuda"),
               torch.zeros(1, 65536, device="cuda"),
               torch.zeros(1, largest, dtype=torch.float16, device="cuda"))
    extension.prepare_buffers(torch.device("cuda:0"), *buffers)

    def make(n: int, k: int) -> Product:
        parts = gptq_parts(n, k)
        handle = cuda_ext.ext_make_q4(parts["qweight"], parts["qzeros"], parts["scales"], None, 0)
        # `parts` and `buffers` are what the handle points to
        return lambda x, out, kept=(parts, buffers): extension.q4_matmul(x, handle, out)

    return make


def exllamav2(shapes: list[tuple[int, int]]) -> Callable[[int, int], Product]:
    """Makes weights for its gemm_half_q_half. Raises whatever its import does."""
    ext = importlib.import_module("exllamav2.ext")
    scratch = torch.zeros(max(n * k for n, k in shapes), dtype=torch.float16, device="cuda")

    def make(n: int, k: int) -> Product:
        parts = gptq_parts(n, k)
        handle = ext.make_q_matrix(parts, scratch)
        return lambda x, out, kept=(parts, scratch): ext.ext_c.gemm_half_q_half(x, handle, out, False)

    return make


PEERS = {"exllama": exllama, "exllamav2": exllamav2}


def measure(make: Callable[[int, int], Product], shapes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    """Microseconds of a product by shape and rows."""
    results = []
    for n, k in shapes:
        products = [make(n, k) for _ in range(max(1, _WEIGHT_BYTES // (n * k // 2)))]
        for rows in ROWS:
            x = torch.randn(rows, k, dtype=torch.float16, device="cuda")
            out = torch.empty(rows, n, dtype=torch.float16, device="cuda")
            taken = milliseconds(lambda x=x, out=out, all=products: [one(x, out) for one in all])
            results.append({"n": n, "k": k, "rows": rows, "microseconds": taken * 1000 / len(products)})
    return results


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check.peers")
    parser.add_argument("--from", dest="source", type=path_option, metavar="DIR")
    parser.add_argument("--out", type=path_option, required=True)
    options = parser.parse_args(arguments)
    config = synthetic_config(SHAPE)
    shapes = [(group.n, group.k) for group in layer_modules(config.spec, config.names, 0)]
    report: dict[str, Any] = {"peers": []}
    for name, open_peer in PEERS.items():
        found: dict[str, Any] = {"name": name, "problem": "", "linear": []}
        folder = options.source / name if options.source else None
        if folder is None or not folder.is_dir():
            found["problem"] = f"not measured: its sources are not here (--peers DIR with DIR/{name})"
        else:
            sys.path.insert(0, str(folder))
            try:
                found["linear"] = measure(open_peer(shapes), shapes)
            except Exception as error:  # other people's code: whatever goes wrong there is a result
                line = (str(error).splitlines() or [""])[0]
                found["problem"] = f"not measured: {type(error).__name__}: {line}"
        print(f"{name}: {found['problem'] or 'measured'}", flush=True)
        report["peers"].append(found)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
