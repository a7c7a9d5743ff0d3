"""Imports run one way: app.py, serve/ -> webui/ -> model/ -> model/kernels/. Read from the sources with ast.

The page's modules too: app.js -> its parts, a folder each -> session/, overlays/, text/ -> server/ -> base/.
"""

from __future__ import annotations

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LAYERS = {"app": 0, "serve": 0, "webui": 1, "model": 2}
OURS = {"app", "serve", "webui", "model", "tools", "tests"}
WEB = {"flask", "werkzeug", "waitress"}
WEB_SHARED = {"errors", "ids", "languages", "sampling", "sentences", "strict_json", "version"}
WEB_FOLDERS = {"api": {"api", "routes", "server", *WEB_SHARED},
               "routes": {"routes", "chat", "exchange", "server", "storage", *WEB_SHARED},
               "exchange": {"exchange", "storage", *WEB_SHARED},
               "server": {"server", *WEB_SHARED},
               "chat": {"chat", "storage", *WEB_SHARED},
               "storage": {"storage", *WEB_SHARED}}
TENSORS = {"torch", "numpy", "safetensors", "sentencepiece", "tokenizers"}
STATIC = ROOT / "webui" / "static"
PAGE_LAYERS = {"base": 0, "server": 1, "session": 2, "overlays": 2, "text": 2,
               "sampling": 3, "memory": 3, "models": 3, "library": 3,
               "writing": 4, "bots": 4, "chat": 5, "tokens": 6, "branches": 6, "panels": 6, "": 7}


def sources(folder: str) -> list[Path]:
    if folder == "app":
        return [ROOT / "app.py"]
    return [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def imported(path: Path) -> list[str]:
    """Full names of every module that the file imports, wherever in the file."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = []
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[:len(package) - node.level + 1]) if node.level else ""
            start = ".".join(part for part in (base, node.module or "") if part)
            names += [start] if node.module else [f"{start}.{alias.name}" for alias in node.names]
    return names


def pairs(folder: str) -> list[tuple[Path, str]]:
    return [(path.relative_to(ROOT), name) for path in sources(folder) for name in imported(path)]


@pytest.mark.parametrize("layer", LAYERS)
def test_nothing_imports_what_lies_above_it(layer):
    for path, name in pairs(layer):
        top = name.partition(".")[0]
        assert top not in ("tools", "tests"), f"{path} imports {name}"
        assert LAYERS.get(top, 9) >= LAYERS[layer], f"{path} imports {name}"


def test_the_kernels_know_nothing_of_the_model_around_them():
    for path, name in pairs("model/kernels"):
        assert not name.startswith("model.") or name.startswith("model.kernels"), f"{path} imports {name}"


MODEL_FOLDERS = ("kernels", "families", "formats", "network", "memory", "engine")
"""Each knows only those before it, and what stands beside them."""
BESIDE_TEXT = ("text", "quantize")


def test_the_folders_of_the_model_know_only_those_below_them():
    for index, folder in enumerate(MODEL_FOLDERS):
        above = {*MODEL_FOLDERS[index + 1:], *BESIDE_TEXT}
        for path, name in pairs(f"model/{folder}"):
            assert not (name.startswith("model.") and name.split(".")[1] in above), f"{path} imports {name}"


def test_what_turns_messages_into_tokens_knows_no_engine():
    for path, name in pairs("model/text"):
        folder = name.removeprefix("model.").partition(".")[0]
        assert folder not in MODEL_FOLDERS, f"{path} imports {name}"


def test_the_web_knows_no_tensor_and_only_the_front_door_of_the_model():
    for path, name in pairs("webui"):
        assert name.partition(".")[0] not in TENSORS, f"{path} imports {name}"
        assert name == "model" or not name.startswith("model."), f"{path} imports {name}"


def test_the_folders_of_the_web_know_only_those_below_them():
    """routes -> chat, exchange -> storage, and server apart. What all share stands beside the folders."""
    for path, name in pairs("webui"):
        layer, _, module = name.partition(".")
        if len(path.parts) > 2 and layer == "webui":
            assert module.partition(".")[0] in WEB_FOLDERS[path.parts[1]], f"{path} imports {name}"


def test_what_the_folders_of_the_web_share_knows_none_of_them():
    for path, name in pairs("webui"):
        layer, _, module = name.partition(".")
        if len(path.parts) == 2 and path.name not in ("__init__.py", "serving.py") and layer == "webui":
            assert module.partition(".")[0] in WEB_SHARED, f"{path} imports {name}"


def test_chat_knows_no_http_and_what_is_kept_or_exchanged_no_model():
    for path, name in pairs("webui/chat") + pairs("webui/exchange") + pairs("webui/storage"):
        assert name.partition(".")[0] not in WEB, f"{path} imports {name}"
    for path, name in pairs("webui/exchange") + pairs("webui/storage"):
        assert name.partition(".")[0] != "model", f"{path} imports {name}"


def test_the_model_knows_no_web():
    for path, name in pairs("model"):
        assert name.partition(".")[0] not in WEB, f"{path} imports {name}"


def test_ray_is_known_where_it_is_served_with_and_nowhere_else():
    for path, name in pairs("app") + pairs("webui") + pairs("model"):
        assert name.partition(".")[0] not in ("ray", "starlette", "serve"), f"{path} imports {name}"


def test_modules_that_import_each_other_in_a_circle_there_are_none():
    graph: dict[str, set[str]] = {}
    for folder in LAYERS:
        for path in sources(folder):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            graph[module] = {name for name in imported_at_load(path) if name.partition(".")[0] in OURS}
    for module in graph:
        assert not reaches(graph, module, module), f"{module} imports itself by a detour"


def imported_at_load(path: Path) -> list[str]:
    """Like imported(), without what stands in functions or under TYPE_CHECKING."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names = []
    for node in parsed(path).body:
        if isinstance(node, ast.ImportFrom):
            base = list(package[:len(package) - node.level + 1]) if node.level else []
            start = ".".join([*base, *([node.module] if node.module else [])])
            modules = {f"{start}.{alias.name}" for alias in node.names}
            names += [name if (ROOT / Path(*name.split("."))).with_suffix(".py").exists() else start
                      for name in modules]
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
    return names


def reaches(graph: dict[str, set[str]], start: str, goal: str) -> bool:
    """Whether a way leads from `start` back to `goal`."""
    seen: set[str] = set()
    waiting = list(graph[start])
    while waiting:
        name = waiting.pop()
        if name == goal:
            return True
        if name not in seen and name in graph:
            seen.add(name)
            waiting += graph[name]
    return False


def test_tests_lie_in_the_folder_of_their_layer_and_import_helpers_that_exist():
    """Beside tests/ itself, only what is of no layer: the program, its start, the files that make it a
    service, its imports, the docs."""
    of_no_layer = {"test_app.py", "test_deploy.py", "test_docs.py", "test_imports.py", "test_start.py"}
    assert {path.name for path in (ROOT / "tests").glob("test_*.py")} <= of_no_layer
    for path, name in pairs("tests") + pairs("tools"):
        if name.partition(".")[0] == "tests":
            module = ROOT / Path(*name.split("."))
            assert module.is_dir() or module.with_suffix(".py").is_file(), f"{path} imports {name}"


def test_nothing_imports_the_tools_but_their_tests():
    for folder in LAYERS:
        assert not [name for _path, name in pairs(folder) if name.startswith("tools")]


def test_no_module_is_named_like_one_of_the_standard_library_and_there_is_no_utils():
    for folder in LAYERS:
        for path in sources(folder):
            assert path.stem not in sys.stdlib_module_names - {"__init__"}, path
            assert path.stem not in ("utils", "helpers", "misc", "common"), path


def test_options_come_from_arguments_and_never_from_the_environment():
    """But for compilers, and for where other programs keep their models."""
    for folder in LAYERS:
        for path in sources(folder):
            for node in ast.walk(parsed(path)):
                if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv") \
                        and isinstance(node.value, ast.Name) and node.value.id == "os":
                    assert "kernels" in path.parts or path.parts[-2:] == ("catalogue", "places.py"), path


def test_jinja_renders_model_text_in_one_place_only():
    users = [path for path, name in pairs("model") + pairs("webui") if name.startswith("jinja2")]
    assert len({path.parent for path in users}) <= 1, users


def test_no_pickle_and_no_flask_development_server():
    for folder in (*LAYERS, "tools"):
        for path in sources(folder):
            text = path.read_text(encoding="utf-8")
            assert "app.run(" not in text and "trust_remote_code=True" not in text, path
            for name in imported(path):
                assert name.partition(".")[0] not in ("pickle", "marshal", "shelve"), f"{path} imports {name}"


@functools.cache
def page_imports(path: Path) -> list[Path]:
    """What a module of the page imports, at once or later."""
    text = re.sub(r"/\*.*?\*/|(?<=\s)//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    statements = r'^(?:import|export)\b[^"`;]*?"(\.[^"]+)";'
    names = re.findall(statements, text, re.MULTILINE)
    names += re.findall(r'\bimport\(\s*["`](\.[^"`]+)["`]', text)
    return [(path.parent / name).resolve() for name in names]


def page_modules() -> list[Path]:
    return [path for path in STATIC.rglob("*.js") if path.relative_to(STATIC).parts[0] != "vendor"]


def page_folder(path: Path) -> str:
    return "/".join(path.relative_to(STATIC).parts[:-1])


def test_the_pages_modules_import_nothing_that_lies_above_them():
    for path in page_modules():
        for other in page_imports(path):
            if page_folder(other).partition("/")[0] == "vendor":
                assert page_folder(path) == "text", f"{path.relative_to(STATIC)} imports {other.name}"
                continue
            assert other.exists(), f"{path.relative_to(STATIC)} imports {other}"
            layer, below = PAGE_LAYERS[page_folder(path)], PAGE_LAYERS[page_folder(other)]
            same = page_folder(path) == page_folder(other)
            assert below < layer or same, f"{path.relative_to(STATIC)} imports {other.relative_to(STATIC)}"


def test_the_pages_modules_import_each_other_in_no_circle():
    graph = {str(path): {str(other) for other in page_imports(path)} for path in page_modules()}
    assert len(graph[str(STATIC / "app.js")]) > 15  # the imports are found
    for module in graph:
        assert not reaches(graph, module, module), f"{module} imports itself by a detour"
