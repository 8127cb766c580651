"""What of names, pictures and numbers gets into a page."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobileface.report import text
from mobileface.report.sections import data_uri


@given(st.text(st.characters(exclude_categories=())))
def test_visible_text_can_be_encoded_and_printed(raw: str) -> None:
    shown = text.visible(raw)
    shown.encode("utf-8")
    assert all(c.isprintable() or c in "\n\t\u00a0" for c in shown)
    if raw.isprintable():
        assert shown == raw


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"<svg", b"GIF89a"]))
def test_only_jpeg_and_png_become_data_addresses(body: bytes, magic: bytes) -> None:
    content = magic + body
    uri = data_uri(base64.b64encode(content).decode())
    is_image = content.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"))
    assert (uri is not None) == is_image
    if uri is not None:
        assert base64.b64decode(uri.partition(",")[2]) == content


@pytest.mark.parametrize("value", [None, 3, "", "@@", "é", "/9j/ 4AAQ", 'x" onerror="alert(1)', "A" * 2_000_000])
def test_what_is_not_base64_of_an_image_is_left_out(value: object) -> None:
    assert data_uri(value) is None


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (text.millions(933_300_000), "933.3\u00a0M"),
        (text.millions(1_234), "0.001\u00a0M"),
        (text.size(4 << 20), "4.00\u00a0MiB"),
        (text.size(512), "0.5\u00a0KiB"),
        (text.duration(59), "59 s"),
        (text.duration(3725), "1 h 2 min"),
        (text.one_in(1e-4), "1 in 10,000"),
        (text.percent(None), "–"),
        (text.short_count(2_000_000), "2\u00a0M"),
    ],
)
def test_numbers_as_text(shown: str, wanted: str) -> None:
    assert shown == wanted
