"""The real app.py with a FakeModel in it.

python -m tests.helpers.fake_server --port N --sessions-dir D [--delay S]

--delay S          seconds a token (0.01)
--prompt-delay S   seconds for each of the four steps of reading the prompt (0)
--seq-len N        context of the model (2048)
--fail NAME        a model of this name cannot be loaded
Everything else goes to app.py. Three bots of its own ship with it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import app
from model import ModelLoadError
from tests.helpers.fake_model import FakeModel

BOTS = (
    ("a0a0a0a0a0a0a001", "Marlow", "#8a5a2b", "You are {{char}}, a lighthouse keeper. You talk to {{user}}.",
     ""),
    ("a0a0a0a0a0a0a002", "Otto", "#3b6ea5", "You are Otto. You write Python.", ""),
    ("a0a0a0a0a0a0a003", "Lin", "#7a4a8a", "You are Lin, a poet.", "Hello {{user}}, I am {{char}}."),
)


def write_bots(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for bot_id, name, color, persona, greeting in BOTS:
        bot = {"schema_version": 1, "id": bot_id, "revision": 1, "name": name, "color": color,
               "persona": persona, "greeting": greeting, "sampling": {}}
        (folder / f"{bot_id}.json").write_text(json.dumps(bot), encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--delay", type=float, default=0.01)
    parser.add_argument("--prompt-delay", type=float, default=0.0)
    parser.add_argument("--seq-len", type=int, default=2048)
    parser.add_argument("--fail")
    parser.add_argument("--sessions-dir", type=Path, required=True)
    own, rest = parser.parse_known_args()

    def load(_path: Path, _config: Any, *, name: str, **_options: Any) -> FakeModel:
        if name == own.fail:
            raise ModelLoadError("it is odd")
        return FakeModel(delay=own.delay, prompt_steps=4, prompt_delay=own.prompt_delay,
                         max_seq_len=own.seq_len)

    shipped = own.sessions_dir / "shipped"
    write_bots(shipped)
    return app.main(["--no-browser", "--sessions-dir", str(own.sessions_dir), *rest], load, shipped)


if __name__ == "__main__":
    sys.exit(main())
