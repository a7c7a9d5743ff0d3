#!/bin/sh
# The one command: sets everything up the first time, then opens the chat. Arguments go to app.py (./start.sh --help).
set -eu
cd "$(dirname "$0")"
sh tools/make_venv.sh requirements-web.txt
exec .venv/bin/python app.py "$@"
