#!/bin/sh
# The one command: sets everything up the first time, then opens the chat. Arguments go to app.py (./start.sh --help).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
sh "$here/tools/make_venv.sh" requirements-web.txt
exec "$here/.venv/bin/python" "$here/app.py" "$@"  # where we were called from: folders may be given from there
