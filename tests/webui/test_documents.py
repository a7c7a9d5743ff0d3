"""Documents that are read for a message."""

from __future__ import annotations

import base64

from tests.helpers.pdf_files import pdf


def test_the_text_of_a_pdf_comes_back_with_the_number_of_its_pages(client):
    sent = {"pdf": base64.b64encode(pdf("The sea", "The end")).decode(), "file": "sea.pdf"}
    answer = client.post("/api/pdf-text", json=sent)
    assert (answer.status_code, answer.json) == (
        200, {"text": "[Page 1]\nThe sea\n\n[Page 2]\nThe end", "pages": 2})


def test_what_cannot_be_read_is_told_by_the_files_name(client):
    def said(**body):
        answer = client.post("/api/pdf-text", json=body)
        assert answer.status_code == 400
        return answer.json["error"]["message"]

    scanned = base64.b64encode(pdf("")).decode()
    assert said(pdf=scanned, file="scan.pdf") == (
        "scan.pdf cannot be attached: it holds no text, as one that was scanned; only text is read, no "
        "pictures.")
    assert said(pdf=scanned).startswith("This file cannot be attached: it holds no text")
    assert said(pdf="%", file="a.pdf") == "a.pdf cannot be attached: it is not in base64."
    assert said(pdf=7, file="a.pdf") == "a.pdf cannot be attached: it is not a text in base64."
    assert said() == "pdf is missing."
    assert said(pdf=scanned, pages=1) == "'pages' is not known here; expected file, pdf."
