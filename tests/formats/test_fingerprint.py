"""A model's fingerprint: other files, other digits; the same ones elsewhere, the same."""

from __future__ import annotations

import hashlib
import shutil

import pytest

from model.fingerprint import fingerprint


def test_a_fingerprint_by_hand(tmp_path):
    """Small files are read whole, each with its size before it."""
    (tmp_path / "config.json").write_bytes(b"{}")
    (tmp_path / "weights").write_bytes(b"\1\2\3")
    found = fingerprint([tmp_path / "config.json", tmp_path / "weights"], "quantize 4")
    assert found == hashlib.sha256(b"quantize 4\n2 {}\n3 \1\2\3").hexdigest()[:16]


def test_names_and_places_do_not_count_but_each_change_of_sampled_bytes_and_sizes_does(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(bytes(range(256)) * 16_384)
    before = fingerprint([file])
    moved = shutil.copy(file, tmp_path / "other.gguf")
    assert fingerprint([moved]) == before != fingerprint([file], "quantize 4")
    data = bytearray(file.read_bytes())
    for place in (0, len(data) - 1):
        changed = data.copy()
        changed[place] ^= 1
        file.write_bytes(changed)
        assert fingerprint([file]) != before
    file.write_bytes(data + b"x")
    assert fingerprint([file]) != before


def test_two_files_are_not_one_with_the_bytes_of_both(tmp_path):
    for name, data in (("a", b"12"), ("b", b"3"), ("c", b"1"), ("d", b"23")):
        (tmp_path / name).write_bytes(data)
    assert fingerprint([tmp_path / "a", tmp_path / "b"]) != fingerprint([tmp_path / "c", tmp_path / "d"])


def test_a_file_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        fingerprint([tmp_path / "gone"])
