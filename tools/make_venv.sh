#!/bin/sh
# Makes .venv beside this folder, unless one is there that will do, and installs the requirements file named by $1.
# Used by start.sh and test.sh. Prints one sentence and ends with 1 where something is missing.
set -eu
cd "$(dirname "$0")/.."

fail() { printf '%s\n' "$*" >&2; exit 1; }

[ -w . ] || fail "Parlor cannot write to its folder, $(pwd). Move it to a folder of your own and start again."

fits() { "$1" tools/install.py >/dev/null 2>&1; }

find_python() {  # python3, python, or any python3.N on the PATH
    for name in python3 python; do
        if fits "$name"; then echo "$name"; return; fi
    done
    IFS=:
    for folder in $PATH; do
        for path in "$folder"/python3.[0-9] "$folder"/python3.[0-9][0-9]; do
            if [ -x "$path" ] && fits "$path"; then echo "$path"; return; fi
        done
    done
    versions=$(sed -n 's/^OLDEST_PYTHON, NEWEST_PYTHON = (3, \([0-9]*\)), (3, \([0-9]*\))$/3.\1 to 3.\2/p' tools/install.py)
    fail "Parlor needs Python $versions, and none was found. On Debian or Ubuntu: sudo apt install python3 python3-venv"
}

if [ -x .venv/bin/python ]; then
    code=0
    .venv/bin/python tools/install.py "$1" || code=$?
    case $code in 0 | 1) exit "$code" ;; esac  # else this environment will not do: too old, or without pip
fi
python=$(find_python) || exit 1
echo "Making a Python environment in .venv ..."
said=$("$python" -m venv --clear .venv 2>&1) \
    || fail "$("$python" --version) cannot make a virtual environment: $said
On Debian or Ubuntu: sudo apt install python3-venv"
exec .venv/bin/python tools/install.py "$1"
