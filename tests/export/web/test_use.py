"""The page in headless Chromium: the keyboard, a phone's screen, other servers, what goes wrong."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobileface.data.synthetic import sample
from tests.export.web.driver import EYES, PHONE, Open, both, crop, give, mark, place, png, wait

pytestmark = pytest.mark.slow


def test_the_policy_holds_requests_back(browser: Any, server: tuple[str, str, list[str]]) -> None:
    page = browser.new_page()
    page.goto(server[0])
    refused = page.evaluate(
        """async (url) => {
            const refused = [];
            document.addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
            await fetch(url + "/meta.json").catch(() => {});
            const image = new Image();
            const script = Object.assign(document.createElement("script"), { src: url + "/app.js" });
            const ended = [image, script].map((part) => new Promise((done) => (part.onload = part.onerror = done)));
            image.src = url + "/picture.png";
            document.head.append(script);
            await Promise.all(ended);
            return refused;
        }""",
        server[1],
    )
    page.close()
    assert set(refused) == {"connect-src", "img-src", "script-src-elem"}
    assert server[2] == []


def test_the_eyes_are_marked_with_the_keyboard(visit: Open, site: Path) -> None:
    page = visit({"width": 1280, "height": 900})
    root = give(page, 0, site / "first.png")
    root.locator("[data-part=view]").scroll_into_view_if_needed()
    for eye in range(2):
        page.keyboard.press("Tab")
        marker = root.locator(".eye").nth(eye)
        if eye == 0:
            while not marker.evaluate("element => element === document.activeElement"):
                page.keyboard.press("Tab")  # past what comes before the pictures
        assert marker.evaluate("element => element === document.activeElement")
        assert "not marked yet" in marker.get_attribute("aria-label")
        assert marker.evaluate("element => getComputedStyle(element).outlineStyle") == "solid"
        x, y = place(marker)
        for key in ("ArrowRight", "ArrowRight", "Shift+ArrowDown", "ArrowUp"):
            page.keyboard.press(key)
        assert place(marker) == pytest.approx((x + 2, y + 9), abs=0.05)
        page.keyboard.press("Enter")
        assert place(marker) == pytest.approx((x + 2, y + 9), abs=0.05)
        assert "not marked yet" not in marker.get_attribute("aria-label")
    root.locator(".facts").wait_for()
    before = crop(root)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # Closer
    assert root.get_by_role("button", name="Closer").get_attribute("aria-pressed") == "true"
    np.testing.assert_array_equal(crop(root), before)


def test_a_marker_is_dragged(visit: Open, site: Path) -> None:
    page = visit({"width": 1280, "height": 900})
    root = give(page, 0, site / "first.png")
    mark(page, root, (640, 480), EYES["first"])
    marker = root.locator(".eye").nth(1)
    x, y = place(marker)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 25, y - 15, steps=3)
    page.mouse.up()
    page.mouse.move(x + 90, y)
    assert place(marker) == pytest.approx((x + 25, y - 15), abs=1)


def test_it_fits_a_phone(visit: Open, site: Path) -> None:
    page = visit()

    def fits() -> None:
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        targets = page.locator("button:visible, .button:visible, select:visible, summary:visible").all()
        boxes = [target.bounding_box() for target in targets]
        assert len(boxes) >= 5
        assert min(min(box["width"], box["height"]) for box in boxes) > 43.9

    fits()
    both(page, site)
    fits()
    page.evaluate("window.scrollTo(0, 0)")
    verdict = page.locator("#verdict").bounding_box()  # stays in sight, wherever the page is
    assert 0 <= verdict["y"] <= PHONE["height"] - verdict["height"]


def test_everything_has_a_name(visit: Open, site: Path) -> None:
    page = visit()
    both(page, site)
    for role in ("button", "img", "combobox", "region"):
        found = page.get_by_role(role).all()
        assert len(found) >= 1
        for element in found:
            name = element.get_attribute("aria-label") or element.inner_text() or element.get_attribute("id")
            assert name
    assert page.get_by_label("False matches allowed").is_visible()
    assert page.get_by_role("region", name="Second picture").get_by_label("Choose a picture").count() == 1


def test_what_is_no_picture(visit: Open, tmp_path: Path) -> None:
    page = visit()
    (tmp_path / "notes.txt").write_text("no picture")
    root = page.locator(".card").first
    root.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    root.locator(".problem", has_text="“notes.txt” is no picture that this browser can read").wait_for()
    assert root.get_attribute("data-state") == "empty"


def test_a_picture_is_dropped(visit: Open, site: Path) -> None:
    page = visit()
    dropped = page.evaluate_handle(
        """(text) => {
            const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "first.png", { type: "image/png" }));
            return data;
        }""",
        base64.b64encode((site / "first.png").read_bytes()).decode(),
    )
    root = page.locator(".card").nth(1)
    root.dispatch_event("drop", {"dataTransfer": dropped})
    root.locator(".stage").wait_for()


def test_the_camera(visit: Open) -> None:
    page = visit(permissions=("camera",))
    root = page.locator(".card").first
    root.get_by_role("button", name="Use the camera").click()
    wait(page, "document.querySelector('video').videoWidth")
    root.get_by_role("button", name="Take the picture").click()
    root.locator(".stage").wait_for()
    assert page.evaluate("document.querySelector('video').srcObject") is None  # switched off


REFUSE = "(name) => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', name); }; }"


@pytest.mark.parametrize(
    ("error", "message"),
    [("NotAllowedError", "The camera was not allowed"), ("NotFoundError", "No camera can be used here")],
)
def test_no_camera(visit: Open, error: str, message: str) -> None:
    page = visit()
    page.evaluate(REFUSE, error)
    root = page.locator(".card").first
    root.get_by_role("button", name="Use the camera").click()
    root.locator(".problem", has_text=message).wait_for()
    assert root.locator(".button").is_visible()


# The page's waits end when the test says so: what waits for the camera, and for pictures to be decoded, by name.
HOLD = """() => {
    window.asked = [];
    window.decoded = {};
    navigator.mediaDevices.getUserMedia = () => new Promise((grant, refuse) => asked.push({
        grant: () => grant(window.stream = document.createElement("canvas").captureStream()),
        refuse: () => refuse(new DOMException("", "NotAllowedError")),
    }));
    const decode = window.createImageBitmap;
    window.createImageBitmap = async (file, ...options) => {
        await new Promise((go) => (decoded[file.name] = go));
        return decode.call(window, file, ...options);
    };
}"""
SETTLE = "() => new Promise((done) => setTimeout(done, 100))"


def held(page: Any, site: Path, name: str) -> None:
    """Choose a picture whose decoding waits."""
    page.locator("input[type=file]").first.set_input_files(site / f"{name}.png")
    wait(page, f"decoded['{name}.png']")


@pytest.mark.parametrize("answer", ["grant", "refuse"])
def test_a_camera_that_is_allowed_too_late(visit: Open, site: Path, answer: str) -> None:
    page = visit()
    page.evaluate(HOLD)
    root = page.locator(".card").first
    root.get_by_role("button", name="Use the camera").click()
    held(page, site, "first")
    page.evaluate("decoded['first.png']()")
    root.locator(".stage").wait_for()
    page.evaluate(f"asked[0].{answer}()")
    page.evaluate(SETTLE)
    assert root.get_attribute("data-state") == "marking"
    assert root.locator(".problem").inner_text() == ""
    assert page.evaluate("window.stream?.getTracks().map((track) => track.readyState) ?? ['ended']") == ["ended"]


def test_the_camera_is_asked_for_twice(visit: Open) -> None:
    page = visit()
    page.evaluate(HOLD)
    root = page.locator(".card").first
    for _ in range(2):
        root.get_by_role("button", name="Use the camera").click()
    page.evaluate("() => { asked[1].grant(); window.second = stream; asked[0].grant(); }")
    page.evaluate(SETTLE)
    assert page.evaluate("document.querySelector('video').srcObject === second")
    assert page.evaluate("stream !== second && stream.getTracks()[0].readyState") == "ended"
    root.get_by_role("button", name="Cancel").click()
    assert root.get_attribute("data-state") == "empty"
    assert page.evaluate("second.getTracks()[0].readyState") == "ended"
    assert root.locator("input").evaluate("element => element === document.activeElement")


def test_the_later_of_two_pictures_stays(visit: Open, site: Path) -> None:
    page = visit()
    page.evaluate(HOLD)
    root = page.locator(".card").first
    held(page, site, "first")
    held(page, site, "second")
    page.evaluate("decoded['second.png']()")
    root.locator(".stage").wait_for()
    mark(page, root, (400, 520), EYES["second"])
    before = crop(root)
    page.evaluate("decoded['first.png']()")
    page.evaluate(SETTLE)
    np.testing.assert_array_equal(crop(root), before)
    assert "Drag the markers" in root.locator("[data-part=task]").inner_text()


# A model whose answers the test gives.
MODEL = """
const embed = () => new Promise((give, refuse) => (window.model = { give, refuse }));
export const openModel = async () => ({ embed });
export const cosine = () => 0.5;
"""
GIVE = "() => { model.give({ embedding: [1], quality: 7, milliseconds: 1 }); delete window.model; }"
REJECT = "() => { model.refuse(new Error('out of memory')); delete window.model; }"


def test_no_answer_stays_beside_another_picture(visit: Open, tmp_path: Path) -> None:
    page = visit(routes={"**/model.js": {"body": MODEL, "content_type": "text/javascript"}})
    page.wait_for_selector("body[data-ready]")

    def aligned(card: int, identity: int) -> None:
        """A crop that needs no eyes, dropped or chosen: the model is asked at once."""
        (tmp_path / "crop.png").write_bytes(png(sample(3, identity, 0)[0]))
        page.locator("input[type=file]").nth(card).set_input_files(tmp_path / "crop.png")
        wait(page, "window.model")

    for card in range(2):
        aligned(card, card)
        page.evaluate(GIVE)
    page.wait_for_selector("body.answered")
    for end in (REJECT, GIVE):
        aligned(0, 2)
        assert page.locator("#verdict").inner_text() == "No answer yet"
        assert not page.locator(".facts").first.is_visible()
        page.evaluate(end)
        if end == REJECT:
            page.locator("#status.bad", has_text="The model does not run: out of memory").wait_for()
            assert page.locator("#verdict").inner_text() == "No answer yet"
    page.wait_for_selector("body.answered")
    assert page.locator("#status").inner_text() == ""


def test_a_model_that_does_not_load(visit: Open, site: Path) -> None:
    meta = json.loads((site / "site" / "meta.json").read_text())
    meta["check"]["embedding"] = [-value for value in meta["check"]["embedding"]]
    cases = {
        "**/model.onnx": ({"status": 404}, "model.onnx is missing on this server (404)"),
        "**/meta.json": ({"body": json.dumps(meta)}, "This browser computes other numbers than the model should"),
        "**/*.wasm": ({"status": 404}, "This page cannot work here"),
    }
    for pattern, (answer, message) in cases.items():
        page = visit(routes={pattern: answer})
        page.locator("#status.bad", has_text=message).wait_for()


def test_without_a_threshold_there_is_no_verdict(visit: Open, site: Path) -> None:
    meta = json.loads((site / "site" / "meta.json").read_text()) | {"thresholds": []}
    page = visit(routes={"**/meta.json": {"body": json.dumps(meta)}})
    page.wait_for_selector("body[data-ready]")
    both(page, site)
    assert page.locator("#verdict").inner_text() == "Similarity"
    assert "comes without a threshold" in page.locator("#detail").inner_text()
    assert not page.locator("#limit").is_visible()
    assert not page.locator("#strictness").is_visible()


def test_opened_as_a_file_it_says_what_to_do(browser: Any, site: Path) -> None:
    page = browser.new_page()
    page.goto((site / "site" / "index.html").as_uri())
    assert "has to come from a web server" in page.locator("#start").inner_text()
    wait(page, "getComputedStyle(document.querySelector('#start')).opacity === '1'")
    page.close()
