"""What may be done on the way from logits to a token, by the numbers of kernels.h (PARLOR_STAGE_*)."""

from __future__ import annotations

STAGES = {"penalties": 1, "dry": 2, "top_n_sigma": 3, "temperature": 4, "top_k": 5, "top_p": 6, "min_p": 7,
          "typical_p": 8, "xtc": 9, "mirostat": 10}
"""Name -> number, in the usual order."""
SAMPLERS = tuple(name for name in STAGES if name != "mirostat")
"""Those that may be put in another order; mirostat takes the place of all cuts."""
STAGES_OF_LOGITS = ("penalties", "dry")
"""These stand before the others, which are about probabilities."""
