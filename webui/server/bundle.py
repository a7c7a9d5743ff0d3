"""The page's modules as few files: a browser asks for one instead of fifty.

Each module becomes a function's body that returns its exports, in the order in which they need each other:
nothing is renamed, and no module sees another's names. What the page loads later is two more bundles, which
take what they need from those before: the settings, which every visit fetches once the chat is there, and
what is loaded when somebody asks for it. Reads the few forms of import and export that our modules use (any
other is a ValueError), not JavaScript. Libraries that are loaded later stay files of their own.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping

FIRST, LATER, ASKED = "page.js", "later.js", "asked.js"
"""What app.js needs at once, what it loads by itself after that, and what it loads when it is asked for."""
ENTRY = "app.js"
SETTINGS = "panels/right-panel.js"
"""What LATER begins with."""
LIBRARIES = "vendor/"

_DOC = r"/\*\*(?:(?!\*/).)*\*/"
_COMMENT = re.compile(rf"^[ \t]*(?:{_DOC}[ \t]*|//[^\n]*)\n|{_DOC} ?", re.MULTILINE | re.DOTALL)
_INDENT = re.compile(r"^[ \t]+", re.MULTILINE)
_TAIL = re.compile(r"""^([^"'`/\n]*?)[ ]*//[^\n]*$""", re.MULTILINE)  # a comment after code without texts
_PLAIN = re.compile(r"^[^`'/\n]*(?:`[^`'/\n]*`[^`'/\n]*)?$", re.MULTILINE)
_TEXT = re.compile(r'("(?:[^"\\\n]|\\.)*"|`[^`]*`)')
_SPACED = re.compile(r" ?([{}()\[\],;:=>&|?*]+) ?")
_IMPORT = re.compile(r'^import \{([^}]*)\} from "(\.{1,2}/[^"]+)";[^\n]*\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function\*?|class|const) (\w+))", re.MULTILINE)
_EXPORT_LIST = re.compile(r"\bexport ?\{([^}]*)\};")  # as libraries end
_LATER = re.compile(r'\bimport\((["`])(\.{1,2}/[^"`]+)\1\)')
_LEFT = re.compile(r"^(?:import|export)\b[^\n]*", re.MULTILINE)


def bundles(sources: Mapping[str, str]) -> dict[str, str]:
    """FIRST, LATER and ASKED of the modules in `sources`: text by path, such as "chat/chips.js"; ENTRY is
    one."""
    sources = {path: text if path.startswith(LIBRARIES) else _COMMENT.sub("", text)
               for path, text in sources.items()}
    first = _in_order(sources, [ENTRY])
    everything = [*first, *_loaded_later(sources, first)]
    soon = _in_order(sources, [ENTRY, SETTINGS]) if SETTINGS in everything else first
    parts = {FIRST: first, LATER: soon[len(first):],
             ASKED: [path for path in everything if path not in soon]}
    names = {path: f"$m{number}" for number, path in enumerate([*soon, *parts[ASKED]])}
    home = {path: bundle for bundle, paths in parts.items() for path in paths}
    made, known = {}, ""
    for bundle, paths in parts.items():
        whole = ", ".join(f'"{path}": {names[path]}' for path in paths)
        made[bundle] = (known + "".join(_wrapped(path, sources[path], names, home) for path in paths)
                        + f"export const modules = {{ {whole} }};\n")
        if not paths:
            continue
        number = len(made)
        known += f'import {{ modules as modules{number} }} from "./{bundle}";\n' + "".join(
            f'const {names[path]} = modules{number}["{path}"];\n' for path in paths)
    return made


def bare(source: str) -> str:
    """JavaScript of ours without comments, indents and most of the spaces that are for people: no text in it
    goes over several lines. Lines with slashes, apostrophes or several templates keep theirs."""
    return _PLAIN.sub(_without_spaces, _INDENT.sub("", _TAIL.sub(r"\1", _COMMENT.sub("", source))))


def _without_spaces(line: re.Match[str]) -> str:
    return "".join(part if at % 2 else _SPACED.sub(r"\1", part)
                   for at, part in enumerate(_TEXT.split(line[0])))


def _in_order(sources: Mapping[str, str], wanted: Iterable[str]) -> list[str]:
    """The modules that `wanted` need, each after those that it imports."""
    order: dict[str, None] = {}

    def take(path: str, above: tuple[str, ...]) -> None:
        if path in above:
            raise ValueError(f"{path} imports itself by a detour: {' -> '.join([*above, path])}")
        if path in order:
            return
        if path not in sources:
            raise ValueError(f"{above[-1] if above else 'The page'} imports {path}, which is not there.")
        for _names, other in _IMPORT.findall(sources[path]):
            take(_absolute(path, other), (*above, path))
        order[path] = None

    for path in wanted:
        take(path, ())
    return list(order)


def _loaded_later(sources: Mapping[str, str], first: list[str]) -> list[str]:
    """Of our modules, those that the page asks for while it runs, each after those that it imports."""
    reached = first
    while True:
        asked = {_absolute(path, other) for path in reached
                 for _quote, other in _LATER.findall(sources[path])}
        own = sorted(path for path in asked if not path.startswith(LIBRARIES))
        more = _in_order(sources, [ENTRY, *own])
        if len(more) == len(reached):
            return more[len(first):]
        reached = more


def _absolute(path: str, relative: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), relative))


def _wrapped(path: str, source: str, names: Mapping[str, str], home: Mapping[str, str]) -> str:
    """`const $m7 = (() => { ...; return { what, it, exports }; })();`"""
    if path.startswith(LIBRARIES):
        exports = []
        for listed in _EXPORT_LIST.findall(source):
            exports += [": ".join(reversed(one.split(" as "))) for one in listed.split(",")]
        body = _EXPORT_LIST.sub("", source)
    else:
        exports = _EXPORT.findall(source)
        body = _EXPORT.sub("", source)

    def take(found: re.Match[str]) -> str:
        return f"const {{{found[1].replace(' as ', ': ')}}} = {names[_absolute(path, found[2])]};\n"

    def load(found: re.Match[str]) -> str:
        target = _absolute(path, found[2])
        if target.startswith(LIBRARIES):
            return f"import({found[1]}./{target}{found[1]})"
        if home[target] == FIRST:
            raise ValueError(f"{path} loads {target} later, but the page has it from the beginning.")
        return f'import("./{home[target]}").then(({{ modules }}) => modules["{target}"])'

    body = _LATER.sub(load, _IMPORT.sub(take, body))
    if left := _LEFT.search(body):
        raise ValueError(f"{path}: {left[0]!r} is no form of import or export that is bundled here.")
    if not path.startswith(LIBRARIES):
        body = bare(body)
    return f"const {names[path]} = (() => {{\n{body}return {{ {', '.join(exports)} }};\n}})();\n"
