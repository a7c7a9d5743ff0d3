"""From a float model's folder to a GPTQ one: `quantize_folder`, and `python -m model.quantize` around it.

Importing this package is cheap; torch is loaded by the work itself.
"""

from model.quantize.run import quantize_folder
from model.quantize.settings import QuantizeOptions

__all__ = ["QuantizeOptions", "quantize_folder"]
