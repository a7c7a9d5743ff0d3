"""docs/http-api.md and docs/api.md name every route there is, and none that is not."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_every_route_is_documented_and_every_documented_route_is_there(app):
    text = "".join((DOCS / name).read_text(encoding="utf-8") for name in ("http-api.md", "api.md"))
    documented = set(re.findall(r"`(GET|POST|PUT|PATCH|DELETE) (/[^?`]*)", text))
    routes = {(method, re.sub(r"<path:(\w+)>", "<path>", rule.rule))
              for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}}
    assert documented == routes
