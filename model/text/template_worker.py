"""Renders chat templates, as a limited process. A model folder's template is somebody else's program.

Jinja's immutable sandbox keeps the template from this program's objects; the process keeps it from the
server's time and memory: a template that runs for ever or builds gigabytes ends the process, no more.
This is the one place that renders a chat template.
"""

from __future__ import annotations

import datetime
import json
from functools import lru_cache
from typing import Any, ClassVar

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

from model.text.limited_process import serve


class GenerationTag(jinja2.ext.Extension):
    """{% generation %}...{% endgeneration %} marks a reply for training; here it is only its content."""

    tags: ClassVar[set[str]] = {"generation"}

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class TooMuchOutput(Exception):
    """The template wrote more than it may."""


def _raise_exception(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """As transformers has it: Jinja's own escapes HTML, which a prompt must not."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def _strftime_now(form: str) -> str:
    return datetime.datetime.now().strftime(form)


@lru_cache(16)
def compiled(source: str) -> jinja2.Template:
    """The template with what transformers gives templates.

    https://github.com/huggingface/transformers/blob/v5.0.0/src/transformers/utils/chat_template_utils.py
    """
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, jinja2.ext.loopcontrols])
    del environment.globals["lipsum"]
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    return environment.from_string(source)


def render(source: str, variables: dict[str, Any], max_characters: int) -> str:
    """The rendered template. Raises TooMuchOutput, jinja2.TemplateError, or what its expressions raise."""
    parts, size = [], 0
    for part in compiled(source).generate(variables):
        size += len(part)
        if size > max_characters:
            raise TooMuchOutput
        parts.append(part)
    return "".join(parts)


def answer(request: dict[str, Any]) -> dict[str, str]:
    """The answer to {"template", "variables", "characters"}, the last being the most it may write: {"text"},
    or {"error", "kind"}: "refused" by the template, "broken", or beyond a "limit"."""
    max_characters = request["characters"]
    try:
        return {"text": render(request["template"], request["variables"], max_characters)}
    except TooMuchOutput:
        return {"kind": "limit", "error": f"it writes over {max_characters:,} characters"}
    except MemoryError:
        return {"kind": "limit", "error": "it needs more memory than templates get"}
    except RecursionError:
        return {"kind": "limit", "error": "it nests too deeply"}
    except jinja2.TemplateSyntaxError as error:
        return {"kind": "broken", "error": f"line {error.lineno}: {error.message}"}
    except jinja2.sandbox.SecurityError as error:
        return {"kind": "broken", "error": f"not allowed: {error}"}
    except jinja2.TemplateError as error:
        kind = "refused" if type(error) is jinja2.TemplateError else "broken"
        return {"kind": kind, "error": str(error)[:500]}
    except Exception as error:  # whatever an expression of the template raises
        return {"kind": "broken", "error": f"{type(error).__name__}: {error}"[:500]}


if __name__ == "__main__":
    serve(answer)
