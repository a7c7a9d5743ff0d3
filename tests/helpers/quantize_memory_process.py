"""A process of its own that quantizes models and says what memory each took at most.

python -m tests.helpers.quantize_memory_process FOLDER ... TEXT -> a line of JSON: peaks in bytes

The first one also loads what any run takes: code, threads, torch's own memory. It and the next one read 128
tokens of the text, the others 2,048.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from pathlib import Path

from model.quantize.__main__ import main as quantize
from tests.helpers.memory_process import forget_peak, peak_memory


def main(folders: list[Path], text: Path) -> None:
    peaks = []
    for number, folder in enumerate(folders):
        forget_peak()
        with contextlib.redirect_stdout(io.StringIO()):
            code = quantize([str(folder), str(folder.with_name(f"{folder.name}-{number}")), "--no-search",
                             f"--calibration={text}", f"--samples={1 if number < 2 else 16}",
                             "--seq-len=128", "--threads=1"])
        assert code == 0
        peaks.append(peak_memory())
    print(json.dumps(peaks), flush=True)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
