"""The page of a small network, a server for it and headless Chromium.

Tests are skipped where Playwright, Chromium or npm (or its network) is missing; with MOBILEFACE_BROWSER=1 in the
environment they fail there.
"""

from __future__ import annotations

import functools
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import pytest
from torch import nn

from export.to_onnx import export_onnx
from export.to_web import export_web
from mobileface.errors import InputError
from tests.export.web.driver import PHONE, Open, fulfilled, photo, png


def missing(reason: str) -> NoReturn:
    """Skip, or fail where the browser has to be there."""
    (pytest.fail if os.environ.get("MOBILEFACE_BROWSER") == "1" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Its path; what is missing, for it or for the page, skips."""
    if find_spec("playwright") is None:
        missing("Playwright is not installed")
    if shutil.which("npm") is None:
        missing("npm is not installed")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    return found or missing("Chromium is not installed")


@pytest.fixture(scope="session")
def site(chromium: str, make: Callable[..., nn.Module], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page with a small network, one threshold that all pairs reach and one that none does; and two pictures."""
    folder = tmp_path_factory.mktemp("page")
    export_onnx(make(), folder / "nano.onnx", {"mobileface.weights_licence": "MIT"})
    try:
        export_web(folder / "nano.onnx", folder / "site", {"1e-2": -1.0, "1e-3": 1.0})
    except InputError as error:
        if not str(error).startswith("npm pack"):
            raise
        missing(str(error))
    for number, (name, size) in enumerate({"first": (480, 640), "second": (520, 400)}.items()):
        (folder / f"{name}.png").write_bytes(png(photo(number, *size)))
    return folder


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=camera)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def server(site: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(address of the page, another origin that serves the same, what that other one was asked for)."""
    asked: list[str] = []

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            if self.server is servers[1]:
                asked.append(self.path)

    handler = functools.partial(Quiet, directory=site / "site")
    servers = [ThreadingHTTPServer(("127.0.0.1", 0), handler) for _ in range(2)]
    for each in servers:
        threading.Thread(target=each.serve_forever, daemon=True).start()
    yield (*(f"http://127.0.0.1:{each.server_port}" for each in servers), asked)  # type: ignore[misc]
    for each in servers:
        each.shutdown()
        each.server_close()


@pytest.fixture
def visit(browser: Any, server: tuple[str, str, list[str]]) -> Iterator[Open]:
    """`visit(size, permissions)`: the page, ready; at the end no error and no request to elsewhere."""
    pages: list[Any] = []
    problems: list[str] = []

    def opened(size: dict[str, int] = PHONE, permissions: tuple[str, ...] = (), routes: Any = None) -> Any:
        context = browser.new_context(viewport=size, permissions=list(permissions), has_touch=size == PHONE)
        page = context.new_page()
        pages.append(page)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: request.url.startswith((server[0], "blob:")) or problems.append(request.url))
        for pattern, answer in (routes or {}).items():
            page.route(pattern, fulfilled(answer))
        page.goto(server[0])
        if not routes:
            page.wait_for_selector("body[data-ready]")
        return page

    yield opened
    for page in pages:
        page.context.close()
    assert not problems
