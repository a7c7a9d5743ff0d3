#!/bin/sh
# Builds, measures and tests Parlor on an NVIDIA GPU, in two calls of five and ten minutes and without a network.
#   sh tools/gpu_check.sh speed --out DIR [--wheels DIR] [--python PROGRAM]
#   sh tools/gpu_check.sh tests --out DIR [--wheels DIR] [--peers DIR] [--python PROGRAM]
# speed: how fast one model is, and where its time goes. tests: what is right, and other sizes.
# Needs CUDA 13, Python 3.12 with torch 2.11 or newer, and --wheels: a folder with wheels of whatever else is missing in
# that Python: flask, itsdangerous, blinker, waitress, safetensors, sentencepiece, tokenizers, jinja2, numpy, ninja, pytest,
# hypothesis. --peers: a folder with the sources of exllama or exllamav2, whose
# products are then measured beside ours. The stages and their times are in tools/gpu_check/__main__.py; one that fails does
# not stop the others. DIR gets results.json, the stages' words (logs.txt) and table.txt, which is printed last;
# each is written after every stage.
# Ends with 0 if every stage passed, 1 if one did not, 2 without a GPU or with wrong arguments.
set -u
cd "$(dirname "$0")/.." || exit 2

usage() {
    echo "usage: sh tools/gpu_check.sh speed|tests --out DIR [--wheels DIR] [--peers DIR] [--python PROGRAM]" >&2
    exit 2
}
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$called_from/$1" ;; esac; }

called_from=${OLDPWD:-$PWD}
case ${1-} in speed | tests) call=$1; shift ;; *) usage ;; esac
out='' wheels='' peers='' python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --out) out=$(absolute "$2") ;;
        --wheels) wheels=$(absolute "$2") ;;
        --peers) peers=$(absolute "$2") ;;
        --python) python=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[ -n "$out" ] || usage
parts=$out/parts
rm -rf "$parts" && mkdir -p "$parts" || exit 2
started=$(date +%s)

if [ -n "$wheels" ]; then
    set -- "$wheels"/*.whl
    [ -e "$1" ] || { echo "tools/gpu_check.sh: there is no wheel in $wheels" >&2; exit 2; }
    "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$parts/site" "$@" \
        || { echo "tools/gpu_check.sh: the wheels in $wheels cannot be installed; pip's words are above" >&2; exit 2; }
    PYTHONPATH=$parts/site${PYTHONPATH:+:$PYTHONPATH}
    export PYTHONPATH
fi
PYTHONUNBUFFERED=1
export PYTHONUNBUFFERED

"$python" -m tools.gpu_check.gpu "$parts/device.json" || { rm -rf "$parts"; exit 2; }
set -- "$call" --out "$out" --started "$started"
[ -z "$peers" ] || set -- "$@" --peers "$peers"
exec "$python" -m tools.gpu_check "$@"
