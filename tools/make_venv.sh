#!/bin/sh
# Makes .venv beside this folder and installs the requirements file named by $1, unless that is already done.
# Used by start.sh and test.sh. Prints one sentence and ends with 1 where something is missing.
set -eu
cd "$(dirname "$0")/.."
requirements=$1

fail() { printf '%s\n' "$*" >&2; exit 1; }

fits() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; }

find_python() {
    for name in python3 python3.13 python3.12 python3.11 python3.10 python; do
        if command -v "$name" >/dev/null 2>&1 && fits "$name"; then echo "$name"; return; fi
    done
    fail "Parlor needs Python 3.10 to 3.13, and none was found. On Debian or Ubuntu: sudo apt install python3 python3-venv"
}

[ -w . ] || fail "Parlor cannot write to its folder, $(pwd). Move it to a folder of your own and start again."

has_pip() { "$1" -c 'from importlib.util import find_spec; raise SystemExit(not find_spec("pip"))'; }  # 0.6 s sooner than pip

if ! { [ -x .venv/bin/python ] && fits .venv/bin/python && has_pip .venv/bin/python; }; then
    python=$(find_python) || exit 1
    echo "Making a Python environment in .venv ..."
    "$python" -m venv --clear .venv >/dev/null 2>&1 \
        || fail "$("$python" --version) cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv"
fi

stamp=.venv/installed-$(basename "$requirements" .txt)
wanted=$(cat requirements-*.txt | cksum)
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    echo "Installing $requirements (the first time takes a few minutes) ..."
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r "$requirements" \
        || fail "Installing $requirements failed; the lines above say why. Without internet it cannot work the first time."
    printf '%s\n' "$wanted" > "$stamp"
fi
