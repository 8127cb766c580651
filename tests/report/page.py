"""A page taken apart by html.parser, not by our own code."""

from __future__ import annotations

import re
from html.parser import HTMLParser

TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "h1", "h2", "h3",
    "h4", "p", "a", "b", "span", "div", "ul", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th",
    "td", "figure", "figcaption", "img", "pre", "code", "wbr",
    "svg", "g", "path", "defs", "use", "text", "clippath", "rect",
}  # fmt: skip
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
    """Tags, attributes and text of a page; nesting is checked on the way."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.styles = ""
        self.feed(page)
        self.close()
        assert not self.open, f"not closed: {self.open}"
        self.text = " ".join("".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, attrs)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.words += [" "] if tag in ("td", "th", "dt", "dd", "p", "li") else []

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.words.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, key, value in self.attributes if key == name]


def assert_self_contained(page: Page) -> None:
    assert set(page.tags) <= TAGS
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    picture_address = re.compile(r"data:image/(jpeg|png);base64,[A-Za-z0-9+/=]+")
    assert all(picture_address.fullmatch(address) for address in page.values("src"))
    assert all(href.startswith("#") for href in page.values("href"))
    assert not page.values("xlink:href")
    assert not page.values("srcset")
    css = page.styles + " ".join(page.values("style") + page.values("clip-path"))
    assert not re.search(r"url\((?!#)|@import|https?:", css)
    assert "default-src 'none'" in " ".join(page.values("content"))
