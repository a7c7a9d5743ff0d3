"""Compare the logits of checkpoints with references that other tools computed; writes JSON.

python -m tools.check_logits DIR --cache q8,q4 --out bench/logits.json

Every folder X below DIR with an X.dequant_fp32_reference.safetensors beside it is loaded twice: with float32
activations and cache (exact) and as it is chatted with (int8 activations, fp16 cache); and so for each other
cache. The reference file holds prompts in1, in7, ... (token ids) and logits_in1, ... (float32). Error is
max|a - b| / max|b|.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from model.options import path_option

REFERENCE = ".dequant_fp32_reference.safetensors"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.check_logits", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=path_option, metavar="DIR",
                        help="where the checkpoints and references lie")
    parser.add_argument("--out", type=path_option, metavar="FILE", help="write the result as JSON")
    parser.add_argument("--cache", default="", metavar="KINDS", help="also with these, such as q8,q4")
    arguments = parser.parse_args()

    import torch

    from model.files import ModelLoadError
    rows, kinds = [], [kind for kind in arguments.cache.split(",") if kind]
    for path in sorted(arguments.folder.rglob(f"*{REFERENCE}")):
        folder = path.with_name(path.name.removesuffix(REFERENCE))
        if not folder.is_dir():
            continue  # a reference of another format, beside a file
        try:
            row = {"folder": str(folder.relative_to(arguments.folder)), "exact": compare(folder, path, True),
                   "int8": compare(folder, path, False)}
            row |= {f"int8, {kind} cache": compare(folder, path, False, kind) for kind in kinds}
        except ModelLoadError as error:
            row = {"folder": str(folder.relative_to(arguments.folder)), "refused": str(error)}
        rows.append(row)
        print(json.dumps(row))
    options = f"--cache {arguments.cache} " if kinds else ""
    report = {"command": f"python -m tools.check_logits DIR {options}--out bench/logits.json",
              "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "machine": machine(),
              "versions": {"python": platform.python_version(), "torch": torch.__version__},
              "error": "max|a - b| / max|b| of the logits, by prompt", "checkpoints": rows}
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    worst = max((row["exact"]["worst_error"] for row in rows if "exact" in row), default=0.0)
    sys.exit(0 if worst < 1e-3 else 1)


def compare(folder: Path, reference: Path, exact: bool, cache: str = "fp16") -> dict[str, Any]:
    """Errors by prompt, and at how many positions the likeliest token is another."""
    from safetensors.torch import load_file

    from model.config import EngineConfig
    from model.engine.loading import load_engine
    expected = load_file(reference)
    engine = load_engine(folder, EngineConfig(exact=exact, cache="fp32" if exact else cache))
    errors, flipped, positions, margin = {}, 0, 0, 0.0
    try:
        for name in sorted((key for key in expected if key.startswith("in")), key=lambda key: int(key[2:])):
            want = expected[f"logits_{name}"][0]
            got = engine.logits(expected[name][0].tolist())
            errors[name] = float((got - want).abs().max() / want.abs().max())
            other = got.argmax(-1) != want.argmax(-1)
            top = want.topk(2).values
            flipped, positions = flipped + int(other.sum()), positions + len(want)
            if other.any():  # how far apart the two likeliest were, in the unit of the error
                margin = max(margin, float((top[:, 0] - top[:, 1])[other].max() / want.abs().max()))
        return {"errors": {name: float(f"{error:.2e}") for name, error in errors.items()},
                "worst_error": float(f"{max(errors.values()):.2e}"), "other_greedy_tokens": flipped,
                "positions": positions, "largest_margin_of_those": float(f"{margin:.2e}"),
                "isa": engine.describe()["isa"]}
    finally:
        engine.close()


def machine() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


if __name__ == "__main__":
    main()
