"""Pictures of bots: their pixels are kept and nothing else, and of what is no small picture nothing."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.helpers.api import MARLOW, OTTO, Page
from tests.helpers.png_cards import as_base64, packed, png, png_chunk, text_chunk
from webui.storage.picture import check_picture, clean_picture
from webui.storage.png_chunks import chunks


def drawn(mode="RGB", size=(5, 4), **options):
    """A picture as Pillow writes it, with much besides its pixels."""
    image = Image.new("RGB", size)
    for at in range(size[0] * size[1]):
        image.putpixel((at % size[0], at // size[0]), (at * 9 % 256, at * 7 % 256, 40))
    info, file = PngInfo(), io.BytesIO()
    info.add_text("Author", "somebody")
    image.convert(mode).save(file, "PNG", pnginfo=info, dpi=(300, 300), exif=b"Exif\0\0secret", **options)
    return file.getvalue()


def kinds(data):
    return [kind for kind, _ in chunks(data)]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA"])
def test_of_a_picture_its_pixels_are_kept_and_nothing_else(mode):
    whole = drawn(mode)
    clean = clean_picture(whole + b"behind its end")
    assert kinds(clean) == [b"IHDR", b"IDAT", b"IEND"] and b"secret" not in clean and b"somebody" not in clean
    pixels = [Image.open(io.BytesIO(data)).tobytes() for data in (clean, whole)]
    assert pixels[0] == pixels[1] and len(pixels[0]) == 20 * len(mode)
    check_picture("it", as_base64(clean))
    for more in (clean + b"x", whole, clean[:33] + png_chunk(b"tEXt", b"a\0b") + clean[33:]):
        with pytest.raises(ValueError, match="more than its pixels"):
            check_picture("it", as_base64(more))


def damaged(head=(2, 2, 8, 2, 0, 0, 0), rows=b"\0" + bytes(6) + b"\0" + bytes(6), more=b""):
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", *head))
            + png_chunk(b"IDAT", zlib.compress(rows) + more) + png_chunk(b"IEND", b""))


WRONG = [
    (b"GIF89a", "it is no PNG file"), (drawn()[:60], "breaks off"),
    (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IEND", b""), "it is no PNG picture"),
    (drawn("P"), "not in plain"), (drawn("1"), "not in plain"), (drawn("I;16"), "not in plain"),
    (png(width=257), "257 x 2 pixels"), (png(height=4_000_000_000 >> 16), "at most 256 x 256"),
    (damaged((0, 2, 8, 2, 0, 0, 0)), "0 x 2 pixels"), (damaged((2, 2, 8, 2, 0, 0, 1)), "interlaced"),
    (damaged(rows=bytes(13)), "its pixels are damaged"), (damaged(rows=bytes(10_000_000)), "are damaged"),
    (damaged(rows=b"\5" + bytes(13)), "are damaged"), (damaged(more=b"hidden"), "are damaged"),
    (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0))
     + png_chunk(b"IDAT", b"no zlib") + png_chunk(b"IEND", b""), "cannot be unpacked")]


def test_what_is_no_small_picture_is_told_and_nothing_is_changed(client):
    for data, said in WRONG:
        response = client.patch(f"/api/bots/{MARLOW}", json={"revision": 1, "picture": as_base64(data)})
        message = response.json["error"]["message"]
        assert response.status_code == 400 and message.startswith("The picture cannot be taken: "), message
        assert said in message, message
    for value in (5, "?", "é", "A" * 500_000):
        assert client.patch(f"/api/bots/{MARLOW}", json={"revision": 1, "picture": value}).status_code == 400
    bot = client.get(f"/api/bots/{MARLOW}").json["bot"]
    assert bot["revision"] == 1 and "picture" not in bot
    assert client.get(f"/api/bots/{MARLOW}/picture").status_code == 404


def test_a_bot_has_its_picture_until_it_is_taken_away(client):
    bot = client.patch(f"/api/bots/{MARLOW}", json={"revision": 1, "picture": as_base64(drawn())}).json["bot"]
    assert "picture" not in bot and len(bot["picture_version"]) == 8
    listed = client.get("/api/bots").json["bots"][0]
    assert "picture" not in listed and listed["picture_version"] == bot["picture_version"]
    response = client.get(f"/api/bots/{MARLOW}/picture?v={bot['picture_version']}")
    assert response.mimetype == "image/png" and "immutable" in response.headers["Cache-Control"]
    assert Image.open(io.BytesIO(response.data)).size == (5, 4)
    assert client.get(f"/api/bots/{MARLOW}/picture").headers["Cache-Control"] == "no-store"
    grey = as_base64(drawn("L"))
    other = client.patch(f"/api/bots/{MARLOW}", json={"revision": 2, "picture": grey}).json["bot"]
    assert other["picture_version"] != bot["picture_version"]
    copy = client.post(f"/api/bots/{MARLOW}/duplicate", json={}).json["bot"]
    assert copy["picture_version"] == other["picture_version"]
    gone = client.patch(f"/api/bots/{MARLOW}", json={"revision": 3, "picture": ""}).json["bot"]
    assert "picture_version" not in gone and client.get(f"/api/bots/{MARLOW}/picture").status_code == 404


def test_a_card_goes_out_within_the_picture_and_comes_in_with_it(client):
    assert client.get(f"/api/bots/{OTTO}/export?format=png").status_code == 404
    assert client.get(f"/api/bots/{OTTO}/export?format=x").status_code == 400
    card = png(text_chunk("chara", packed({"name": "Sera", "first_mes": "Hi", "description": "A guard."})))
    body = {"png": as_base64(card), "picture": as_base64(drawn())}
    bot = client.post("/api/sessions/import", json=body).json["bot"]
    assert bot["picture_version"]
    out = client.get(f"/api/bots/{bot['id']}/export?format=png")
    assert out.headers["Content-Disposition"].startswith('attachment; filename="Sera.png"')
    assert kinds(out.data) == [b"IHDR", b"IDAT", b"tEXt", b"tEXt", b"IEND"]
    again = client.post("/api/sessions/import", json={"png": as_base64(out.data)}).json["bot"]
    assert (again["name"], again["persona"]) == ("Sera 2", "A guard.") and "picture_version" not in again
    broken = client.post("/api/sessions/import", json={**body, "picture": as_base64(b"no")})
    assert broken.status_code == 400 and len(client.get("/api/bots").json["bots"]) == 5


def test_a_session_takes_the_picture_of_its_bot_along(client):
    client.patch(f"/api/bots/{MARLOW}", json={"revision": 1, "picture": as_base64(drawn())})
    exported = client.get(f"{Page(client).url}/export?format=json").json
    kept = exported["bots"][0]["picture"]
    client.delete(f"/api/bots/{MARLOW}")
    dirty = {**exported["bots"][0], "picture": base64.b64encode(drawn()).decode()}
    refused = client.post("/api/sessions/import", json={"data": {**exported, "bots": [dirty]}})
    assert refused.status_code == 400 and "more than its pixels" in refused.json["error"]["message"]
    assert client.post("/api/sessions/import", json={"data": exported}).status_code == 201
    assert client.get(f"/api/bots/{MARLOW}").json["bot"]["picture"] == kept
