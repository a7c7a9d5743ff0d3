"""app.py with the model that ships, in a process of its own, for the clients of other programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.server_process import ROOT, Server


class StarterServer(Server):
    """`python app.py` with a free port and these arguments; `with` ends it."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        super().__init__(folder, "--threads", "1", "--no-browser", *arguments)

    def start(self) -> None:
        flags = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP} if os.name == "nt" else {}
        self.process = subprocess.Popen(
            [sys.executable, "app.py", "--port", str(self.port), *self._arguments], cwd=ROOT,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **flags)
        self.port = self._read_port()
