"""What is shown of a session as one HTML file, safe to open and to pass on.

What people and models wrote is untrusted: markdown-it-py makes HTML of its Markdown with everything escaped
that is HTML already; links lead to the web or to a person, pictures are links. Beneath that lies a policy in
the file itself that forbids everything but its own style: no script, no request to anywhere.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

from ..storage.schema import Bot, Session
from .transcript import Line, shown

MAX_RENDERED = 2_000_000
"""Characters of a session whose Markdown is rendered, about five seconds; what follows stands as written."""
STYLE = """
:root { color-scheme: light dark; font: 16px/1.6 system-ui, sans-serif;
  color: light-dark(#24211c, #ece7dd); background: light-dark(#fff, #191816); }
main { max-width: 46rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; line-height: 1.25; }
.note, time { color: light-dark(#625c51, #aaa394); font-size: 0.875rem; }
article { margin: 1.25rem 0; overflow-wrap: anywhere; }
article.user { padding: 0.75rem 1rem; border-radius: 10px; background: light-dark(#efeae0, #2a2823); }
header { display: flex; gap: 0.5rem; align-items: baseline; break-after: avoid; }
header b { unicode-bidi: isolate; }
.text > :first-child { margin-top: 0.25rem; }
.text > :last-child { margin-bottom: 0; }
.text h2 { font-size: 1.0625rem; margin: 1.25rem 0 0.5rem; }
.written { white-space: pre-wrap; }
pre { padding: 0.75rem; border-radius: 6px; overflow-x: auto; background: light-dark(#f3ede5, #26241f); }
pre, code { font: 0.875rem/1.5 ui-monospace, Consolas, "DejaVu Sans Mono", monospace; }
blockquote { margin: 0.75rem 0; padding-left: 1rem; border-left: 3px solid light-dark(#e3ded3, #4a463f); }
table { border-collapse: collapse; display: block; overflow-x: auto; }
th, td { padding: 0.25rem 0.625rem; border: 1px solid light-dark(#e3ded3, #4a463f); text-align: start; }
a { color: light-dark(#0f6b5c, #5fc4ae); }
@media print { :root { color-scheme: light; font-size: 11pt; background: none; }
  main { max-width: none; padding: 0; }
  article.user { padding: 0; background: none; }
  pre { white-space: pre-wrap; border: 1px solid #ccc; background: none; } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; form-action 'none'"
_LINKED = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")


def html_page(session: Session, bots: Sequence[Bot] = ()) -> str:
    """The file. Takes about a second for each half million characters."""
    lines = shown(session, bots)
    title = _escaped(session["title"])
    left = MAX_RENDERED
    articles = []
    for line in lines:
        left -= len(line.text)
        articles.append(_article(line, rendered=left >= 0))
    count = "1 message" if len(lines) == 1 else f"{len(lines):,} messages"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f'<h1 dir="auto">{title}</h1>\n<p class="note">{count}, saved from Parlor</p>\n'
        + "".join(articles) + "</main>\n</body>\n</html>\n")


def _article(line: Line, *, rendered: bool) -> str:
    text = _UNPRINTABLE.sub("\ufffd", line.text)
    body = _MARKDOWN.render(text) if rendered else f'<p class="written">{escape(text)}</p>\n'
    return (f'<article class="{"user" if line.is_user else "bot"}">\n'
            f'<header><b dir="auto">{_escaped(line.name)}</b> <time>{_escaped(line.about)}</time></header>\n'
            f'<div class="text" dir="auto">\n{body}</div>\n</article>\n')


def _escaped(text: str) -> str:
    return escape(_UNPRINTABLE.sub("\ufffd", text))


def _picture(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """A link: nothing is loaded from elsewhere, not even where a policy is not kept."""
    token = tokens[index]
    said = escape(token.content or "untitled")
    return f'<a href="{escape(str(token.attrs["src"]))}" rel="noreferrer noopener">Picture: {said}</a>'


def _link_open(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    tokens[index].attrSet("rel", "noreferrer noopener")
    return self.renderToken(tokens, index, options, env)


def _cell_open(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """With its alignment as an attribute: the policy takes no style."""
    token = tokens[index]
    style = str(token.attrs.pop("style", ""))
    if style:
        token.attrSet("align", style.rpartition(":")[2])
    return self.renderToken(tokens, index, options, env)


def _heading(self: RendererHTML, tokens: Sequence[Token], index: int, options: Any, env: Any) -> str:
    """One level for all: they lie within the page's own heading."""
    tokens[index].tag = "h2"
    return self.renderToken(tokens, index, options, env)


def _renderer() -> MarkdownIt:
    markdown = MarkdownIt("commonmark", {"html": False, "breaks": True}).enable(["table", "strikethrough"])
    markdown.validateLink = lambda url: _LINKED.match(url) is not None
    markdown.add_render_rule("image", _picture)
    markdown.add_render_rule("link_open", _link_open)
    for kind in ("th_open", "td_open"):
        markdown.add_render_rule(kind, _cell_open)
    for kind in ("heading_open", "heading_close"):
        markdown.add_render_rule(kind, _heading)
    return markdown


_MARKDOWN = _renderer()
