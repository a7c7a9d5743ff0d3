"""What came out, layer by layer: as JSON, and as a picture of errors and bits."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from model.quantize.png import LETTER_HEIGHT, LETTER_WIDTH, Color, Picture
from model.quantize.writer import write_json

JSON_FILE, PICTURE_FILE = "quantize_report.json", "quantize_report.png"
_BARS = 160        # the height of the chart above
_COLORS: dict[int, Color] = {2: (214, 96, 77), 3: (244, 165, 130), 4: (146, 197, 222), 8: (67, 147, 195)}
_INK: Color = (60, 60, 60)
_PALE: Color = (225, 225, 225)


@dataclass(frozen=True)
class ReportedLayer:
    """Bits and relative error of the outputs of each linear, by its name within the layer."""

    bits: dict[str, int]
    errors: dict[str, float]  # empty where nothing was measured

    @property
    def error(self) -> float:
        """The root of the mean square over the linears."""
        return math.sqrt(sum(error ** 2 for error in self.errors.values()) / len(self.errors))


def write_report(folder: Path, title: str, layers: list[ReportedLayer], facts: dict[str, Any]) -> None:
    """Both files; no picture where no errors were measured."""
    shown = [{"bits": layer.bits, "errors": {name: round(error, 6) for name, error in layer.errors.items()}}
             for layer in layers]
    write_json(folder / JSON_FILE, {**facts, "layers": shown})
    if all(layer.errors for layer in layers):
        draw(title, layers).save(folder / PICTURE_FILE)


def draw(title: str, layers: list[ReportedLayer]) -> Picture:
    """Above a bar for each layer's error; below a row for each linear: its color says the bits, the number
    its error in percent, where there is room."""
    linears = list(dict.fromkeys(name for layer in layers for name in layer.bits))
    cell = max(6, min(48, 1600 // len(layers)))
    left = LETTER_WIDTH * (max(map(len, linears)) + 2)
    row, top = LETTER_HEIGHT + 8, 3 * LETTER_HEIGHT
    below = top + _BARS + 2 * LETTER_HEIGHT + 4
    width = max(left + cell * len(layers), LETTER_WIDTH * (len(title) + 2), left + 30 * LETTER_WIDTH)
    picture = Picture(width + LETTER_WIDTH, below + row * len(linears) + 3 * LETTER_HEIGHT)
    picture.text(LETTER_WIDTH, LETTER_HEIGHT // 2, title, _INK)
    _draw_bars(picture, layers, left, top, cell)
    for index, name in enumerate(linears):
        picture.text(LETTER_WIDTH, below + index * row + 4, name, _INK)
        for number, layer in enumerate(layers):
            if name in layer.bits:
                x, y = left + number * cell, below + index * row
                picture.rectangle(x, y, cell - 1, row - 1, _COLORS[layer.bits[name]])
                if cell >= 4 * LETTER_WIDTH:
                    picture.text(x + 3, y + 4, f"{100 * layer.errors[name]:.1f}"[:4], _INK)
    x = left
    for bits, color in _COLORS.items():
        picture.rectangle(x, below + len(linears) * row + 8, LETTER_HEIGHT, LETTER_HEIGHT, color)
        picture.text(x + 2 * LETTER_WIDTH, below + len(linears) * row + 8, f"{bits} bits", _INK)
        x += 9 * LETTER_WIDTH
    return picture


def _draw_bars(picture: Picture, layers: list[ReportedLayer], left: int, top: int, cell: int) -> None:
    highest = max(layer.error for layer in layers) or 1.0
    for share in (0.0, 0.5, 1.0):
        y = top + round(_BARS * (1 - share))
        picture.rectangle(left, y, cell * len(layers), 1, _PALE)
        picture.text(LETTER_WIDTH, y - LETTER_HEIGHT // 2, f"{100 * highest * share:.1f}%", _INK)
    every = max(1, math.ceil(4 * LETTER_WIDTH / cell))
    for number, layer in enumerate(layers):
        height = round(_BARS * layer.error / highest)
        picture.rectangle(left + number * cell, top + _BARS - height, cell - 1, height, _INK)
        if number % every == 0:
            picture.text(left + number * cell, top + _BARS + 5, str(number + 1), _INK)
