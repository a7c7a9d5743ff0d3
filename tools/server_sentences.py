"""The sentences that the server says to people, found in its sources: see webui/sentences.py.

A sentence is a text, or an f-string, that is raised or that ends as sentences do. Each expression in an
f-string is a place, named by it: f"{len(text):,} of {self.kind.name}" is "{text} of {kind_name}".
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from webui.routes.settings import settings_sentences
from webui.sentences import PLACE

HERE = Path(__file__).resolve().parent.parent
SOURCES = ("webui/*.py", "webui/chat/*.py", "webui/exchange/*.py", "webui/routes/*.py", "webui/server/*.py",
           "webui/storage/*.py", "model/*.py", "model/slot/*.py", "model/catalogue/*.py", "model/hub/*.py",
           "model/remote/*.py", "model/memory/*.py", "model/engine/*.py", "model/network/adapters.py",
           "model/kernels/build/*.py", "model/text/fitting.py", "model/text/pdf_text.py",
           "model/text/limited_process.py")
"""What people hear from. What is wrong inside a checkpoint's files (model/formats/, families/, tokenizers) is
told in the words of those who make them, and stays English, as the protocols of programs do."""
NOT_SHOWN = ("model/__init__.py", "model/config.py", "model/engine/draft_loading.py",
             "model/engine/loading.py", "model/engine/next_token.py", "model/engine/request.py",
             "model/kernels/build/__main__.py", "model/kernels/build/cuda.py",
             "model/memory/layer_split.py", "model/model_config.py", "model/options.py",
             "model/remote/options.py", "model/reply.py", "model/shard.py", "webui/exchange/exllama.py",
             "webui/languages.py", "webui/routes/metrics.py", "webui/routes/service.py",
             "webui/sampling.py", "webui/server/bundle.py", "webui/server/connections.py",
             "webui/server/json_log.py", "webui/server/programs.py", "webui/storage/names.py",
             "webui/storage/schema.py", "webui/storage/search_index.py", "webui/storage/token_files.py")
"""For programs, for the console, for the log, said elsewhere, or about what only programs get wrong."""
ALSO = frozenset("""
{where} has {value} characters; expected {least} to {most}
{where} may not hold a colon, a line break or outer spaces
{where} are not a list of at most {max_greetings} texts
the rest of its card is not an object of at most {max_card} KiB
the title
the user's name
the user's persona
the system prompt
the character
the greeting
the example dialogue
the name
the address
the key
The engine {address_name}
The engine {address_name} ({address_host})
another address
Waiting for another process that is compiling the kernels
Compiling kernels {done}/{total}: {title}
{address} refuses the key{told}
{address} takes no more requests now{told}.{later}
{address} refused the request ({status}){told}
The key
The header {name}
The engine failed: {name}: {error}
{found_name} cannot be read: {name}
loaded are {adapters}
none is loaded
the connection broke off
the connection broke off ({error})
the hub answers with {answer_status_code}
the hub cannot go on from here
It cannot be written: {error}
Another model
a GGUF file of it in {name} ({numbers})
{coming} was not loaded: {problem}
{coming} is being loaded
the present one is being unloaded
even without the messages that can be left out
Shorten it
Shorten it, unpin messages
Shorten the last message or the system prompt
Shorten the last message or the system prompt, unpin messages
reading it takes more than {memory_bytes} MiB of memory
it is damaged, or no PDF file
The reply is not saved yet: {refused_why}
Not saved yet: {refused_why}
The reply could not be kept: {error_message}
What this conversation costs cannot be told: {error}
What {speaker_name} would be sent cannot be told now: {error}
belongs to a reply that is not saved yet: {refused_why} It is tried again.
is of version {version}; this Parlor reads up to {kind_version}. It was left as it is.
is damaged ({error}) and was moved to {parent_name}/{target_name}.
is damaged ({error}) and was left as it is.
could not be read: {error_strerror}. It was left as it is.
is damaged at line {index}
could not be taken over: {error_strerror}. It was left as it is.
is not named like a reply
waits until its session can be saved: {error}
{content_damage}; what came before was kept in its session
is damaged from its first line on
holds a reply that no session takes ({error})
cannot be used: {error_strerror}. The bots that come with Parlor may be missing.
The message
The title
The password
the other greetings
the lore book
the picture
the keys of {where}
the secondary keys of {where}
entry {index} of {where}
a key of {where}
instructions for the end of the prompt
notes of its author
greetings for groups
settings of other programs
who it is
greeting
nickname
tags
pictures and sounds
1 picture or sound in it
{number} pictures and sounds in it
lore book with 1 entry
lore book with {entries} entries
example dialogue
1 other greeting
{others} other greetings
1 other field
{others} other fields
""".strip().split("\n"))
"""Parts of sentences, and some that end otherwise."""
_FAULTS = ("RuntimeError", "TypeError", "AttributeError", "AssertionError")
"""What is raised for programmers."""
TO_MODELS = ("You are ", "You shorten ", "People in the room", "It was a clear night", "Say the alphabet")
_SENTENCE = re.compile(r"(?s)[A-Z{`].* .*[.?!]")
_WORDS = re.compile(r"[A-Za-z]{2,}")
_IDENTIFIER = re.compile(r"[A-Za-z]\w*")
_LOGS = ("debug", "info", "warning", "exception", "add_argument", "compile", "execute")


def server_sentences() -> set[str]:
    """All of SOURCES, and the names of kinds of things that stand in their places."""
    paths = sorted({path for pattern in SOURCES for path in HERE.glob(pattern)})
    silent = {HERE / name for name in NOT_SHOWN}
    found = [(text, is_said and path not in silent) for path in paths
             for text, is_said in sentences_in(path.read_text("utf-8"))]
    if gone := ALSO - {text for text, _is_said in found}:
        raise ValueError(f"ALSO of {Path(__file__).name} has what no source says any more: {sorted(gone)}")
    return ({text for text, is_said in found if is_said} | ALSO) - settings_sentences()


def sentences_in(source: str) -> Iterator[tuple[str, bool]]:
    """The texts of one module, and whether each is said to people."""
    tree = ast.parse(source)
    unseen = {id(inner) for node in ast.walk(tree) for inner in _unsaid(node)}
    raised = {id(inner) for node in ast.walk(tree) if _is_refusal(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from ((kind, True) for kind in _kinds(node))
        text = None if id(node) in unseen else template(node)
        if text is None or text.startswith(TO_MODELS):
            continue
        text = text.strip()
        words = len(_WORDS.findall(PLACE.sub("", text)))
        yield text, words > 1 and bool(_SENTENCE.fullmatch(text) or (id(node) in raised and " " in text))


def _is_refusal(node: ast.AST) -> bool:
    return isinstance(node, ast.Raise) and not (
        isinstance(node.exc, ast.Call) and ast.unparse(node.exc.func) in _FAULTS)


def template(node: ast.AST) -> str | None:
    """The text with a named place for each expression; None if the node is no text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if not isinstance(node, ast.JoinedStr):
        return None
    parts, names = [], []
    for value in node.values:
        if isinstance(value, ast.Constant):
            parts.append(value.value)
        else:
            name = _name(value.value)
            names.append(name)
            parts.append(f"{{{name}{names.count(name) if names.count(name) > 1 else ''}}}")
    return "".join(parts)


def _name(expression: ast.expr) -> str:
    """By what it is taken from: the last names in it that are not of a function."""
    if isinstance(expression, ast.Name):
        return expression.id.strip("_").lower()
    if isinstance(expression, ast.Attribute):
        of = [part for part in ast.unparse(expression).split(".") if _IDENTIFIER.fullmatch(part.strip("_"))]
        return "_".join(part.strip("_").lower() for part in of[-2:] if part != "self")
    if isinstance(expression, ast.Subscript) and isinstance(expression.slice, ast.Constant) \
            and isinstance(expression.slice.value, str):
        return f"{_name(expression.value)}_{expression.slice.value}"
    if isinstance(expression, ast.Call) and expression.args:
        return _name(expression.args[0])
    for child in ast.iter_child_nodes(expression):
        if isinstance(child, ast.expr) and not isinstance(child, ast.Constant):
            return _name(child)
    return "value"


def _unsaid(node: ast.AST) -> Iterator[ast.AST]:
    """Parts of it that nobody is told: docstrings, lines of a log, and the parts of an f-string, but for the
    words in its places."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        yield node.value
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _LOGS:
        yield from ast.walk(node)
    elif isinstance(node, ast.JoinedStr):
        yield from node.values
        specs = [value.format_spec for value in node.values if isinstance(value, ast.FormattedValue)]
        yield from (part for spec in specs if spec for part in ast.walk(spec))


def _kinds(call: ast.Call) -> Iterator[str]:
    """check_id(..., "session"), check_text("the title", ...), Kind("session", ...): words for places."""
    function = ast.unparse(call.func).split(".")[-1]
    place = {"check_id": 1, "check_text": 0, "check_name": 0, "Kind": 0}.get(function)
    if place is not None and len(call.args) > place:
        text = template(call.args[place])
        if text and "{" not in text and (function in ("check_id", "Kind") or " " in text):
            yield text
