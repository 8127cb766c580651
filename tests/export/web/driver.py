"""What a person does on the page, by Playwright, and what should come of it, by OpenCV."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from mobileface.data.align import TEMPLATE
from mobileface.data.synthetic import sample

PHONE = {"width": 360, "height": 740}
EYES = {"first": ((210, 260), (300, 250)), "second": ((140, 150), (215, 170))}  # x, y in px of the pictures

Pixels = NDArray[np.uint8]
Open = Callable[..., Any]


def photo(identity: int, height: int, width: int) -> Pixels:
    """A synthetic face amid coarse and fine noise."""
    rng = np.random.default_rng(identity)
    coarse = rng.integers(0, 256, (height // 40, width // 40, 3)).astype(np.uint8)
    image = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    face = cv2.resize(sample(7, identity, 0)[0], (300, 300), interpolation=cv2.INTER_CUBIC)
    image[50 : 50 + 300, 50 : 50 + 300] = face
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def matrix(eyes: Any) -> NDArray[np.float64]:
    """(2, 3): OpenCV's own similarity through two points."""
    (x0, y0), (x1, y1) = np.float64(eyes)
    (u0, v0), (u1, v1) = TEMPLATE[:2]
    third = (x0 - (y1 - y0), y0 + (x1 - x0)), (u0 - (v1 - v0), v0 + (u1 - u0))  # a quarter turn around the first
    points = np.float32([(x0, y0), (x1, y1), third[0]]), np.float32([(u0, v0), (u1, v1), third[1]])
    return cv2.getAffineTransform(*points)  # type: ignore[return-value]


def png(image: Pixels) -> bytes:
    return cv2.imencode(".png", image[..., ::-1])[1].tobytes()


def fulfilled(answer: dict[str, Any]) -> Callable[[Any], None]:
    """What a page gets instead of a file of the server."""
    return lambda route: route.fulfill(**answer)


def wait(page: Any, condition: str) -> None:
    """Until a JavaScript expression holds. (Playwright's own way needs eval, which the page's policy forbids.)"""
    page.evaluate(f"async () => {{ while (!({condition})) await new Promise((go) => setTimeout(go, 20)); }}")


def give(page: Any, card: int, path: Path) -> Any:
    """Choose a file on one of the two cards; returns the card."""
    root = page.locator(".card").nth(card)
    root.locator("input[type=file]").set_input_files(path)
    root.locator(".stage").wait_for()
    return root


def mark(page: Any, root: Any, size: tuple[int, int], eyes: Any) -> NDArray[np.float64]:
    """Click the eyes at about x, y of a picture of (width, height) px; where exactly is returned, (2, 2).

    Clicks are at whole px of the screen. OpenCV counts from the centre of a pixel, the screen from its corner.
    """
    canvas = root.locator("[data-part=view]")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    corner, scale = np.array([box["x"], box["y"]]), max(size) / box["width"]
    border = (max(size) - np.array(size)) / 2
    clicks = np.round(corner + (np.array(eyes) + border) / scale)
    for x, y in clicks.tolist():
        page.mouse.click(x, y)
    return (clicks - corner) * scale - border - 0.5  # type: ignore[no-any-return]


def crop(root: Any) -> Pixels:
    """(112, 112, 3): what the page cut out."""
    url = root.locator("[data-part=crop]").evaluate("canvas => canvas.toDataURL('image/png')")
    encoded = np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8)
    return cv2.imdecode(encoded, cv2.IMREAD_COLOR)[..., ::-1]  # type: ignore[no-any-return]


def both(page: Any, site: Path) -> list[tuple[Any, NDArray[np.float64]]]:
    """Both pictures given and marked, and the answer there; returns card and eyes of each."""
    sizes = {"first": (640, 480), "second": (400, 520)}
    cards = [give(page, number, site / f"{name}.png") for number, name in enumerate(sizes)]
    marked = [(root, mark(page, root, sizes[name], EYES[name])) for root, name in zip(cards, sizes, strict=True)]
    page.wait_for_selector("body.answered")
    return marked


def place(marker: Any) -> tuple[float, float]:
    """The marker's centre on the screen, in px."""
    box = marker.bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
