"""A chat with the starter through the web interface, as the page does it: a question, an answer, its end.

    python -m tools.gpu_check.chat --device cuda --out chat.json
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

from model.options import path_option

ROOT = Path(__file__).resolve().parents[2]
QUESTION = "Who are you, and what do you do all day?"
_PATIENCE_S = 120


def request(address: str, method: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(address, data, {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(asked, timeout=_PATIENCE_S) as answer:
        return json.load(answer)


def events(address: str) -> list[tuple[str, dict[str, Any]]]:
    """Every event of a reply, up to its last."""
    found, kind = [], ""
    with urllib.request.urlopen(address, timeout=_PATIENCE_S) as stream:
        for raw in stream:
            name, _, value = raw.decode().rstrip("\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data":
                found.append((kind, json.loads(value)))
                if kind in ("done", "error"):
                    return found
    return found


def chat(address: str) -> dict[str, Any]:
    """Ask, and read the reply. Raises RuntimeError if it does not come to a good end."""
    session = request(f"{address}api/sessions", "POST", {})["session"]
    started = request(f"{address}api/sessions/{session['id']}/messages", "POST",
                      {"revision": session["revision"], "text": QUESTION})
    seen = events(f"{address}api/replies/{started['reply']['reply_id']}/events?from=0")
    text = "".join(data["text"] for kind, data in seen if kind == "text")
    stats = [data for kind, data in seen if kind == "stats"]
    if not seen or seen[-1][0] != "done" or not text.strip():
        raise RuntimeError(f"the reply did not end well: {seen[-1:]}")
    return {"question": QUESTION, "answer": text, "stats": stats[-1] if stats else None,
            "engine": request(f"{address}api/status", "GET")["engine"]}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.gpu_check.chat")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=path_option, required=True)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "app.py", "--device", options.device, "--port", "0", "--no-browser",
                   "--sessions-dir", folder]
        server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            lines = (re.search(r"http://\S+", line) for line in server.stdout)
            address = next((found[0] for found in lines if found), "")
            if not address:
                raise RuntimeError("the server did not start; its words are above")
            result = chat(address if address.endswith("/") else address + "/")
        finally:
            server.kill()
            server.wait()
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{result['answer']!r}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
