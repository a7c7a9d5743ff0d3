#!/bin/sh
# The one command that sets everything up and runs every check: ruff, then all tests, the browser's included.
# Arguments go to pytest (./test.sh -k store); -n 0 runs the tests in one process.
set -eu
cd "$(dirname "$0")"

install() {  # Debian's packages, where we may
    if [ "$(id -u)" = 0 ]; then sudo=; elif sudo -n true 2>/dev/null; then sudo=sudo; else return 1; fi
    command -v apt-get >/dev/null 2>&1 || return 1
    echo "Installing $* ..."
    $sudo apt-get -qq update && DEBIAN_FRONTEND=noninteractive $sudo apt-get -qq install -y --no-install-recommends "$@" >/dev/null
}

unpack_nginx() {  # not installed: that would start a server on port 80
    mkdir -p build/nginx && cd build/nginx && apt-get download nginx && dpkg -x nginx_*.deb .
}

install_what_is_missing() {
    if ! command -v chromium-headless-shell >/dev/null 2>&1; then  # Chromium without its window, which takes longer
        install chromium-headless-shell fonts-noto-color-emoji fonts-noto-cjk || command -v chromium >/dev/null 2>&1 \
            || install chromium fonts-noto-color-emoji fonts-noto-cjk \
            || { echo "The browser tests need Chromium. On Debian: sudo apt install chromium-headless-shell" >&2; return 1; }
    fi
    if [ "$(uname -m)" = x86_64 ] && ! command -v qemu-aarch64 >/dev/null 2>&1; then  # without them those tests are skipped
        install g++-aarch64-linux-gnu qemu-user || echo "The kernels for ARM are not tested: no g++-aarch64-linux-gnu, qemu-user" >&2
    fi
    if ! command -v nginx >/dev/null 2>&1 && ! [ -x /usr/sbin/nginx ] && ! [ -x build/nginx/usr/sbin/nginx ]; then
        (unpack_nginx) >/dev/null 2>&1 || echo "The server is not tested behind nginx: there is none" >&2
    fi
}

if ! command -v g++ >/dev/null 2>&1 && ! command -v clang++ >/dev/null 2>&1; then
    install g++ || { echo "The tests need a C++ compiler. On Debian or Ubuntu: sudo apt install g++" >&2; exit 1; }
fi
install_what_is_missing &  # while Python's packages come
packages=$!
sh tools/make_venv.sh requirements-dev.txt
.venv/bin/python -m model.kernels.build &  # once, before the processes that all need them
kernels=$!
.venv/bin/python -m ruff check .
wait "$packages"
wait "$kernels"
exec .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist worksteal "$@"
