"""Quantize a float model to GPTQ safetensors: python -m model.quantize SOURCE TARGET"""

from __future__ import annotations

import argparse
import sys

from model.machine import return_large_blocks
from model.options import path_option
from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.gptq import GridOptions
from model.quantize.packing import SUPPORTED_BITS


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    grid, work = GridOptions(), QuantizeOptions()
    parser = argparse.ArgumentParser(prog="python -m model.quantize", description=__doc__)
    parser.add_argument("source", type=path_option,
                        help="folder of a bf16, fp16 or fp32 model of attention and mlps (safetensors)")
    parser.add_argument("target", type=path_option, help="folder to write")
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--bits", type=int, choices=SUPPORTED_BITS, default=grid.bits)
    size.add_argument("--target-size", type=float, metavar="GB",
                      help="of all tensors: each linear gets 2, 3, 4 or 8 bits, where they save most error "
                           "for a byte, by measurement")
    size.add_argument("--bits-per-weight", type=float, metavar="BITS",
                      help="the same for a mean of what is quantized, scales and zero points included")
    parser.add_argument("--group-size", type=int, default=grid.group_size,
                        help="inputs that share a scale; -1 is the whole column (default: %(default)s)")
    parser.add_argument("--method", choices=("gptq", "round"), default=work.method,
                        help="gptq makes good each rounding error in the weights still to come; "
                             "round takes the nearest code (default: %(default)s)")
    parser.add_argument("--awq", action="store_true",
                        help="scale inputs so that large ones meet less rounding, where that can be folded "
                             "into norms and other weights")
    parser.add_argument("--act-order", action="store_true", help="quantize the largest inputs first")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--sym", dest="symmetric", action="store_true", default=grid.symmetric,
                      help="one zero point in the middle (default)")
    kind.add_argument("--asym", dest="symmetric", action="store_false", help="a zero point for each group")
    parser.add_argument("--no-search", dest="search", action="store_false", default=grid.search,
                        help="take each scale from its group's largest weight, not from a search")
    parser.add_argument("--damping", type=float, default=grid.damping,
                        help="share of the mean diagonal added to the Hessian (default: %(default)s)")
    parser.add_argument("--correction", type=float, default=work.correction,
                        help="share of the earlier layers' errors that each matrix is led to make good; "
                             "0 is plain GPTQ (default: %(default)s)")
    parser.add_argument("--calibration", type=path_option, metavar="FILE",
                        help="UTF-8 text like what the model will read "
                             "(default: SOURCE/calibration.txt, else Parlor's own README and sources)")
    parser.add_argument("--samples", type=int, default=work.samples,
                        help="times --seq-len: how many tokens of the text are read (default: %(default)s)")
    parser.add_argument("--seq-len", type=int, default=work.seq_len,
                        help="tokens that are read in one piece (default: %(default)s)")
    parser.add_argument("--shard-size", type=float, default=work.shard_bytes / 1e9, metavar="GB",
                        help="largest file to write (default: %(default)g)")
    parser.add_argument("--threads", type=int, help="of torch (default: torch's own choice)")
    parser.add_argument("--overwrite", action="store_true", help="replace TARGET if it exists")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    return_large_blocks()
    try:
        grid = GridOptions(
            bits=arguments.bits, group_size=arguments.group_size, symmetric=arguments.symmetric,
            search=arguments.search, act_order=arguments.act_order, damping=arguments.damping)
        options = QuantizeOptions(
            grid=grid, method=arguments.method, calibration=arguments.calibration, samples=arguments.samples,
            seq_len=arguments.seq_len, threads=arguments.threads,
            correction=arguments.correction, awq=arguments.awq, bits_per_weight=arguments.bits_per_weight,
            target_bytes=None if arguments.target_size is None else int(arguments.target_size * 1e9),
            overwrite=arguments.overwrite,
            shard_bytes=int(arguments.shard_size * 1e9))
        quantize_folder(arguments.source, arguments.target, options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
