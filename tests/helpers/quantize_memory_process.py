"""A process of its own that quantizes two models and says what memory each took at most.

python -m tests.helpers.quantize_memory_process FOLDER FOLDER TEXT -> a line of JSON: peaks in bytes

The first one also loads what any run takes: code, threads, torch's own memory.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from model.quantize import QuantizeOptions, quantize_folder
from model.quantize.gptq import GridOptions
from tests.helpers.memory_process import forget_peak, peak_memory


def main(folders: list[Path], text: Path) -> None:
    peaks = []
    for number, folder in enumerate(folders):
        forget_peak()
        options = QuantizeOptions(GridOptions(group_size=64, search=False), calibration=text, samples=16,
                                  seq_len=128, threads=1)
        target = folder.with_name(f"{folder.name}-{number}")
        quantize_folder(folder, target, options, progress=lambda line: None)
        peaks.append(peak_memory())
    print(json.dumps(peaks), flush=True)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
