"""PDF files, put together by hand."""

from __future__ import annotations

import zlib


def pdf(*pages: str, encrypt: bytes = b"") -> bytes:
    """A PDF with a page for each text (ASCII; "" is a page without any)."""
    return pdf_of([b"BT /F1 12 Tf 72 720 Td (%b) Tj ET" % text.encode() if text else b"" for text in pages],
                  encrypt=encrypt)


def pdf_of(streams: list[bytes], *, filters: bytes = b"", encrypt: bytes = b"") -> bytes:
    """A PDF with a page for each content stream.

    filters  such as b"/Filter /FlateDecode", of every stream   encrypt  further entries of the trailer
    """
    kids = b" ".join(b"%d 0 R" % (4 + 2 * index) for index in range(len(streams)))
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>",
               b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(streams)),
               b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"]
    for index, stream in enumerate(streams):
        objects.append(b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents %d 0 R"
                       b" /Resources << /Font << /F1 3 0 R >> >> >>" % (5 + 2 * index))
        objects.append(b"<< /Length %d %b >>\nstream\n%b\nendstream" % (len(stream), filters, stream))
    file, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        offsets.append(len(file))
        file += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    number = len(objects) + 1
    return file + (b"xref\n0 %d\n0000000000 65535 f \n%btrailer << /Size %d /Root 1 0 R %b >>\n"
                   b"startxref\n%d\n%%%%EOF\n" % (number, table, number, encrypt, len(file)))


def bomb(unpacked_bytes: int, times: int = 3) -> bytes:
    """A PDF of one page whose content was packed `times` over, and unpacks to that many bytes of text."""
    packed = b"BT /F1 12 Tf " + b"(aaaa) Tj " * (unpacked_bytes // 10) + b"ET"
    for _ in range(times):
        packed = zlib.compress(packed, 9)
    names = b" ".join([b"/FlateDecode"] * times)
    return pdf_of([packed], filters=b"/Filter [%b]" % names)
