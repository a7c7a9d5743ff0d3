"""The route that reads a document for a message: nothing of it is kept."""

from __future__ import annotations

from flask import Blueprint
from flask.typing import ResponseReturnValue

from model import pdf_text

from .. import strict_json
from ..errors import BadRequest
from .body import read_body

MAX_CHARACTERS = 100_000
"""As the page takes of any file."""
MAX_FILE_NAME = 1_000

bp = Blueprint("documents", __name__, url_prefix="/api")


@bp.post("/pdf-text")
def read_pdf() -> ResponseReturnValue:
    """The text of a PDF file, which comes as `pdf` in base64; `file` is what an error calls it."""
    with read_body() as body:
        pdf = body.value("pdf")
        file = body.text("file", most=MAX_FILE_NAME, default="").strip() or "This file"
    try:
        text, pages = pdf_text(strict_json.from_base64("it", pdf), MAX_CHARACTERS)
    except ValueError as error:
        raise BadRequest(f"{file} cannot be attached: {error}.") from None
    return {"text": text, "pages": pages}
