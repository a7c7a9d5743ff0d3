"""The text of PDF files, and what is said of those that have none or do harm."""

from __future__ import annotations

import io

import pytest
from pypdf import PdfReader, PdfWriter

from model import pdf_text
from model.text.limited_process import ProcessLimits
from model.text.pdf_text import MAX_PAGES, PdfError
from tests.helpers.pdf_files import bomb, pdf

NO_KEY = b"/Encrypt << /Filter /Standard /V 1 /R 2 /O (%b) /U (%b) /P -4 >> /ID [(%b) (%b)]" % (
    b"o" * 32, b"u" * 32, b"0" * 16, b"0" * 16)


def encrypted(password: str, algorithm: str) -> bytes:
    writer = PdfWriter(clone_from=io.BytesIO(pdf("Only printing is forbidden")))
    writer.encrypt(password, "of the owner", algorithm=algorithm)
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


def test_each_page_stands_under_its_number_and_empty_ones_are_left_out():
    assert pdf_text(pdf("The sea", "", "The end"), 1000) == ("[Page 1]\nThe sea\n\n[Page 3]\nThe end", 3)
    assert pdf_text(pdf("One page"), 1000) == ("One page", 1)


def test_a_page_reads_as_the_library_reads_it():
    file = pdf(r"Fog, and a lamp \(lit\)")
    expected = PdfReader(io.BytesIO(file)).pages[0].extract_text()
    assert pdf_text(file, 1000)[0] == expected == "Fog, and a lamp (lit)"


def test_a_file_that_opens_without_a_password_is_read():
    assert pdf_text(encrypted("", "RC4-128"), 1000) == ("Only printing is forbidden", 1)


@pytest.mark.parametrize(("file", "said"), [
    (encrypted("secret", "RC4-128"), "it is encrypted; save it without a password first"),
    (pdf("Secret", encrypt=NO_KEY), "it is encrypted; save it without a password first"),
    (pdf("", ""), "it holds no text, as one that was scanned; only text is read, no pictures"),
    (b"%PDF-1.4\n" + b"\xff\x00nothing" * 20, "it is damaged, or no PDF file"),
    (pdf("The sea")[:150], "it is damaged, or no PDF file"),
    (b"", "it is damaged, or no PDF file"),
    (pdf(*["x"] * (MAX_PAGES + 1)), "it has 501 pages; at most 500 are read"),
    (pdf("a" * 600, "b" * 600), "its text is too long: 1,000 characters are taken, which end on page 2 of 2"),
], ids=["password", "encrypted by hand", "scanned", "broken", "cut off", "empty", "pages", "characters"])
def test_a_file_without_text_for_a_message_says_why(file, said):
    with pytest.raises(PdfError) as error:
        pdf_text(file, 1000)
    assert str(error.value) == said


def test_a_page_that_unpacks_to_hundreds_of_megabytes_is_given_up():
    file = bomb(200_000_000)
    assert len(file) < 1000
    with pytest.raises(PdfError, match=r"^reading it takes more than 1,024 MiB of memory$"):
        pdf_text(file, 1000)


def test_a_page_that_takes_long_is_given_up_and_the_next_file_is_read():
    with pytest.raises(PdfError, match=r"^reading it takes longer than 0\.05 seconds$"):
        pdf_text(bomb(5_000_000, 1), 1000, ProcessLimits(0.05, 1 << 30))
    assert pdf_text(pdf("The sea"), 1000) == ("The sea", 1)
