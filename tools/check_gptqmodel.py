"""Load a quantized folder with gptqmodel and compare every weight with what is read here; writes JSON.

In an environment of its own, as gptqmodel brings versions of its own: pip install gptqmodel, then
python -m tools.check_gptqmodel starter --out bench/gptqmodel.json

gptqmodel unpacks each linear layer with its torch kernel on the CPU; model/formats reads the same layer.
Equal means every number, in float16 as gptqmodel has it.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model.options import path_option


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.check_gptqmodel",
                                     description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=path_option, metavar="DIR", help="a folder with GPTQ weights")
    parser.add_argument("--out", type=path_option, metavar="FILE", help="write the result as JSON")
    arguments = parser.parse_args()
    rows = compare(arguments.folder)
    different = [row for row in rows if not row["equal"]]
    report = {"command": f"python -m tools.check_gptqmodel {arguments.folder} --out bench/gptqmodel.json",
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
              "versions": {"python": platform.python_version(),
                           **{name: version(name) for name in ("gptqmodel", "transformers", "torch")}},
              "linear_layers": len(rows), "weights": sum(row["weights"] for row in rows),
              "different_layers": different}
    print(json.dumps(report, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    sys.exit(1 if different or not rows else 0)


def compare(folder: Path) -> list[dict[str, Any]]:
    """For each linear layer its name, how many weights it has, and whether both read the same numbers."""
    import torch
    from gptqmodel import BACKEND, GPTQModel

    from model.formats.checkpoint import open_checkpoint
    from model.model_config import ModelConfig

    reader = open_checkpoint(folder, ModelConfig.from_folder(folder))
    theirs = GPTQModel.load(str(folder), device="cpu", backend=BACKEND.GPTQ_TORCH, dtype=torch.float16)
    rows = []
    for name, module in theirs.model.named_modules():
        if not hasattr(module, "qweight"):
            continue
        want = module.dequantize_weight().T  # [out, in], columns in the file's order
        matrix = reader.matrix(name, *want.shape)
        group = torch.arange(want.shape[1]) // matrix.group_size
        ours = (matrix.codes.half() - matrix.zeros[:, group].half()) * matrix.scales[:, group]
        if matrix.perm is not None:
            ours = torch.empty_like(ours).index_copy_(1, matrix.perm.long(), ours)
        rows.append({"name": name, "weights": want.numel(), "equal": bool(torch.equal(ours, want.half()))})
    return rows


if __name__ == "__main__":
    main()
