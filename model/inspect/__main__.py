"""Say what a model's file or folder holds and what it would take here: python -m model.inspect PATH"""

from __future__ import annotations

import argparse
import sys

from model.config import EngineConfig
from model.inspect import inspect_model
from model.options import path_option


def main(argv: list[str] | None = None) -> int:
    """The exit code: 0 if the model can be loaded, else 1."""
    parser = argparse.ArgumentParser(prog="python -m model.inspect", description=__doc__)
    parser.add_argument("path", type=path_option, help="a GGUF file, or the folder of a model")
    parser.add_argument("--exact", action="store_true", help="as it would be loaded with app.py --exact")
    parser.add_argument("--quantize", type=int, choices=(4, 8), metavar="BITS",
                        help="the same with --quantize")
    arguments = parser.parse_args(argv)
    report = inspect_model(arguments.path, EngineConfig(device="cpu", exact=arguments.exact,
                                                          quantize=arguments.quantize))
    print("\n".join(report.lines()))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
