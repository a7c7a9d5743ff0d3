#!/bin/sh
# Builds, tests and measures Parlor on an NVIDIA GPU, in ten minutes and without a network.
#   sh tools/gpu_check.sh --out DIR [--wheels DIR] [--python PROGRAM]
# Needs CUDA 13, Python 3.12 with torch 2.11 or newer, and --wheels: a folder with wheels of whatever else is missing in
# that Python (requirements-dev.txt names it all). Each stage has a time of its own; one that fails does not stop the others.
# DIR gets results.json, the stages' words (logs.txt) and table.txt, which is printed last.
# Ends with 0 if every stage passed, 1 if one did not, 2 without a GPU or with wrong arguments.
set -u
cd "$(dirname "$0")/.." || exit 2

usage() { echo "usage: sh tools/gpu_check.sh --out DIR [--wheels DIR] [--python PROGRAM]" >&2; exit 2; }
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$called_from/$1" ;; esac; }

called_from=${OLDPWD:-$PWD}
out='' wheels='' python=python3
[ -x .venv/bin/python ] && python=.venv/bin/python
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || usage
    case $1 in
        --out) out=$(absolute "$2") ;;
        --wheels) wheels=$(absolute "$2") ;;
        --python) python=$2 ;;
        *) usage ;;
    esac
    shift 2
done
[ -n "$out" ] || usage
parts=$out/parts
rm -rf "$parts" && mkdir -p "$parts" || exit 2
started=$(date +%s)
most=590

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
: > "$parts/stages.txt"

# stage NAME SECONDS COMMAND...: at most so long, and no longer than is left of the ten minutes
stage() {
    name=$1 seconds=$2
    shift 2
    begun=$(date +%s)
    left=$((started + most - begun))
    [ "$seconds" -le "$left" ] || seconds=$left
    if [ "$left" -lt 5 ]; then
        code=125
    else
        echo "$name ..."
        timeout -k 5 "$seconds" "$@" > "$parts/$name.log" 2>&1
        code=$?
        [ "$code" = 0 ] || tail -n 5 "$parts/$name.log"
    fi
    echo "$name $code $(($(date +%s) - begun))" >> "$parts/stages.txt"
}

small='tests/test_cuda_engine.py tests/test_kernels.py'
stage build 150 "$python" -m tools.gpu_check.build
stage chat 60 "$python" -m tools.gpu_check.chat --device cuda --out "$parts/chat.json"
stage reload 45 "$python" -m tools.gpu_check.reload --device cuda --out "$parts/reload.json"
stage tests 150 "$python" -m pytest --device cuda -q -p no:cacheprovider --ignore=tests/browser
# shellcheck disable=SC2086  # two words on purpose
stage memcheck 70 compute-sanitizer --tool memcheck --error-exitcode 9 \
    "$python" -m pytest --device cuda -q -x -p no:cacheprovider $small
# shellcheck disable=SC2086
stage racecheck 70 compute-sanitizer --tool racecheck --error-exitcode 9 \
    "$python" -m pytest --device cuda -q -x -p no:cacheprovider $small
stage 7B 60 "$python" -m tools.gpu_check.speed --shape llama-2-7b --linear --out "$parts/7B.json"
stage 70B 90 "$python" -m tools.gpu_check.speed --shape llama-2-70b --linear --out "$parts/70B.json"
stage 8B 45 "$python" -m tools.gpu_check.speed --shape llama-3-8b --out "$parts/8B.json"
stage 13B 45 "$python" -m tools.gpu_check.speed --shape llama-2-13b --out "$parts/13B.json"
stage 33B 60 "$python" -m tools.gpu_check.speed --shape llama-1-33b --out "$parts/33B.json"
stage crossover 30 "$python" -m tools.benchmark --crossover --json "$parts/crossover.json"

"$python" -m tools.gpu_check.table "$parts" "$out/results.json" > "$out/table.txt"
code=$?
tail -n +1 "$parts"/*.log > "$out/logs.txt"
rm -rf "$parts"
cat "$out/table.txt"
exit "$code"
