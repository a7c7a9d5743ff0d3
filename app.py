"""Parlor: chat with a local model in the browser. Arguments -> create_app -> waitress, then the model."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import io
import ipaddress
import logging
import os
import sys
import threading
import webbrowser
from collections.abc import Callable
from pathlib import Path

from model import (
    Catalogue,
    ChatModel,
    Downloads,
    Engines,
    Found,
    ModelLoadError,
    ModelSlot,
    found_at,
    known_places,
    load_model,
    parse_source,
)
from model.kernels.errors import KernelBuildError
from model.options import add_engine_options, engine_config, path_option
from model.remote.options import add_remote_options, engines_of
from webui import create_app
from webui.server import json_log
from webui.server.guard import Guard
from webui.server.other_devices import EVERYWHERE, address_for_others, qr_text, url_of
from webui.server.password import Password
from webui.server.programs import Programs
from webui.serving import PortTaken, open_socket, serve
from webui.storage.folder_lock import FolderInUse
from webui.storage.store import Store

HERE = Path(__file__).resolve().parent
STARTER = HERE / "starter"
GIVEN = "Given with -d"
SHIPPED_BOTS = HERE / "starter" / "bots"


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="app.py", description="Chat with a local language model in the browser.",
        epilog="Example: python app.py -d ~/models/TinyLlama-1.1B-GPTQ --max-seq-len 4096")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("-d", "--model", type=path_option, metavar="PATH",
                       help="a GGUF file, or the folder of a model; default: the small one that ships, "
                            "starter/")
    which.add_argument("--hub", metavar="OWNER/NAME[:FILE]",
                       help="get a model from Hugging Face's hub into --models-dir and load it; FILE is a "
                            "file, or a quantization such as Q8_0 (default: Q4_K_M, or what fits)")
    which.add_argument("--no-model", action="store_true",
                       help="start without a model: one is chosen in the page")
    parser.add_argument("--models-dir", type=path_option, default=HERE / "models", metavar="FOLDER",
                        help="whose models the page offers, beside those of other programs "
                             "(default: models/ beside app.py)")
    parser.add_argument("--idle-unload", type=_minutes, metavar="MINUTES",
                        help="give the model's memory back after so long without a reply; the next message "
                             "loads it again")
    parser.add_argument("--host", default="127.0.0.1",
                        help="address to listen on; beyond this machine it needs --password "
                             "(default: %(default)s)")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME",
                        help="another name that browsers open this Parlor by: of a LAN, a tailnet, a "
                             "proxy in front; may be given several times")
    parser.add_argument("--behind-proxy", type=_address, metavar="ADDRESS",
                        help="the address of a proxy in front, such as 127.0.0.1, that says who asks and "
                             "whether by https (X-Forwarded-For and -Proto)")
    parser.add_argument("--port", type=_port, default=5005,
                        help="0 takes any free one (default: %(default)s)")
    add_engine_options(parser)
    add_remote_options(parser)
    parser.add_argument("--sessions-dir", type=path_option, default=HERE / "sessions", metavar="FOLDER",
                        help="where sessions and bots are kept (default: sessions/ beside app.py)")
    parser.add_argument("--password", nargs="?", const="", metavar="FILE",
                        help="the browser asks for a password: FILE's first line, or else typed in now")
    parser.add_argument("--api-key", type=path_option, metavar="FILE",
                        help="programs that use /v1 and Ollama's paths need a key: one of FILE's lines")
    parser.add_argument("--allow-origin", action="append", default=[], metavar="ORIGIN",
                        help="a web page elsewhere that may use them, such as http://localhost:3000; may be "
                             "given several times")
    parser.add_argument("--no-browser", action="store_true", help="do not open the browser")
    parser.add_argument("--log", choices=("text", "json"), default="text",
                        help="json: each line on the console is a JSON object, and each request is one "
                             "(default: %(default)s)")
    arguments = parser.parse_args(argv)
    arguments.config = engine_config(parser, arguments)
    chosen = arguments.model or arguments.hub or arguments.no_model
    arguments.begins_elsewhere = bool(arguments.engine) and not chosen
    arguments.model = arguments.model or STARTER
    return arguments


def main(argv: list[str] | None = None, load: Callable[..., ChatModel] = load_model,
         shipped_bots: Path = SHIPPED_BOTS) -> int:
    """The exit code: 0 after a clean end, 1 with one sentence on stderr if it could not start."""
    for stream in (sys.stdout, sys.stderr):  # a console that lacks a folder's characters shows them escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    arguments = parse_arguments(argv)
    if arguments.log == "json":
        json_log.begin()
    else:
        logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    try:
        return run(arguments, load, shipped_bots)
    except (FolderInUse, PortTaken, ModelLoadError, KernelBuildError, ValueError) as error:
        print(f"Parlor: {error}", file=sys.stderr)
    except PermissionError as error:
        print(f"Parlor: no permission to write {error.filename}. Choose another folder with --sessions-dir.",
              file=sys.stderr)
    except OSError as error:
        print(f"Parlor: {error.filename or 'the system'}: {error.strerror or error}.", file=sys.stderr)
    except KeyboardInterrupt:
        print("\nStopped before it was ready.", file=sys.stderr)
    return 1


def run(arguments: argparse.Namespace, load: Callable[..., ChatModel], shipped_bots: Path) -> int:
    """Cheap checks first, so that what cannot work is told before a model is loaded."""
    programs = Programs(_read_keys(arguments.api_key), arguments.allow_origin)
    guard = Guard(arguments.host, _read_password(arguments.password), names=arguments.allow_host,
                  programs=programs)
    if arguments.hub is not None:
        parse_source(arguments.hub)
    elif not arguments.no_model and not arguments.begins_elsewhere and not arguments.model.exists():
        raise ModelLoadError(f"there is no {arguments.model}. Give a GGUF file or a model's folder with -d.")
    store = Store(arguments.sessions_dir, shipped_bots=shipped_bots)
    try:
        return serve_until_the_end(arguments, guard, store, load)
    finally:
        store.close()


def serve_until_the_end(arguments: argparse.Namespace, guard: Guard, store: Store,
                        load: Callable[..., ChatModel]) -> int:
    listener = open_socket(arguments.host, arguments.port)
    port = listener.getsockname()[1]
    address = url_of("127.0.0.1" if arguments.host in EVERYWHERE else arguments.host, port)
    store.lock.describe(address)
    slot, downloads = make_slot(arguments, load)
    first = first_model(arguments, downloads)
    store.begin_indexing()
    app = create_app(slot, store, guard=guard, downloads=downloads)
    if arguments.log == "json":
        app.wsgi_app = json_log.log_requests(app.wsgi_app)  # type: ignore[method-assign]

    def ready() -> None:
        """The page is there at once; its first message waits for the model."""
        print(f"\nParlor is open: {address}   (Ctrl+C ends it)", flush=True)
        tell_other_devices(address_for_others(arguments.host, port))
        if first is not None:
            slot.load_first(first, Progress(), print)
        if arguments.begins_elsewhere:
            slot.begin(slot.engines.first())
        if slot.state.coming_name:
            threading.Thread(target=tell_what_came, args=(slot,), daemon=True).start()
        if not arguments.no_browser:
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    serve(app, listener, ready=ready, proxy=arguments.behind_proxy)
    store.close()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # every text is on disk: no thread that is in the middle of a step may hold up the end


def make_slot(arguments: argparse.Namespace,
              load: Callable[..., ChatModel]) -> tuple[ModelSlot, Downloads]:
    """The place of the model, empty, with all that may come into it, and what gets more of them."""
    with contextlib.suppress(OSError):  # where nothing may be written there are other programs' models
        arguments.models_dir.mkdir(parents=True, exist_ok=True)
    starter = found_at(STARTER, "Comes with Parlor")
    known = [starter] if arguments.model == STARTER else [found_at(arguments.model, GIVEN), starter]
    catalogue = Catalogue(known_places(arguments.models_dir), arguments.config, known)
    idle = arguments.idle_unload
    slot = ModelSlot(load, catalogue, arguments.config, engines=Engines(engines_of(arguments)),
                     idle_seconds=None if idle is None else 60 * idle)
    downloads = Downloads(arguments.models_dir, lambda: catalogue.free_bytes() + slot.held_bytes,
                          done=catalogue.add)
    return slot, downloads


def first_model(arguments: argparse.Namespace, downloads: Downloads) -> Found | None:
    """What is loaded at the start; what lies on a hub is downloaded now. Raises HubError."""
    if arguments.hub is not None:
        return downloads.get_now(arguments.hub, Progress())
    return None if arguments.no_model or arguments.begins_elsewhere else found_at(arguments.model, GIVEN)


def tell_other_devices(address: str | None) -> None:
    """Where a phone opens it, as a picture where the console can show one."""
    if address is None:
        return
    can_show = sys.stdout.isatty() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    print(f"On other devices: {address}\n" + (qr_text(address) if can_show else ""), flush=True)


def tell_what_came(slot: ModelSlot) -> None:
    """On the console, as the page does: the model is there, or why it is not. Then another can be chosen."""
    state = slot.wait()
    if state.problem:
        print(f"\nParlor: {state.problem}", file=sys.stderr, flush=True)
    elif slot.model is not None:
        if host := slot.model.info()["host"]:
            print(f"\nWhat is said in the page goes to {host}.", flush=True)
        print(f"\n{state.name} is loaded.", flush=True)


def _read_password(source: str | None) -> Password | None:
    """None without --password. Raises ValueError, OSError."""
    if source is None:
        return None
    text = getpass.getpass("Password for Parlor: ") if source == "" else \
        Path(source).expanduser().read_text(encoding="utf-8-sig").partition("\n")[0].rstrip("\r")
    return Password(text)


def _read_keys(path: Path | None) -> list[str]:
    """The lines of the file. Raises ValueError if there is a file without a key, OSError."""
    if path is None:
        return []
    keys = path.read_text(encoding="utf-8-sig").split()
    if not keys:
        raise ValueError(f"--api-key {path} holds no key; expected one a line.")
    return keys


class Progress:
    """What is being loaded, a line each; on a terminal its share counts up in place."""

    def __init__(self) -> None:
        self._what = ""
        self._in_place = sys.stdout.isatty()

    def __call__(self, what: str, done: float) -> None:
        if what != self._what:
            print("\n" if self._what and self._in_place else "", end="")
        elif not self._in_place:
            return
        self._what = what
        if self._in_place:
            print(f"\r{what} {done:4.0%}", end="", flush=True)
        else:
            print(what, flush=True)


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes above 0")
    return minutes


def _address(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no IP address such as 127.0.0.1") from None


def _port(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or int(text) > 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 0 to 65535")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
