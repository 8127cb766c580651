"""The page's crops, embeddings and answer in headless Chromium, against Python."""

from __future__ import annotations

import base64
from pathlib import Path

import cv2
import numpy as np
import pytest

from mobileface.data.align import TEMPLATE
from mobileface.data.photos import view
from mobileface.data.synthetic import sample
from mobileface.embedders.onnx import OnnxEmbedder
from tests.export.web.driver import EYES, Open, both, crop, give, matrix, photo, png

pytestmark = pytest.mark.slow


def test_the_model_answers_as_in_python(visit: Open, site: Path) -> None:
    images = np.stack([sample(3, identity, 0)[0] for identity in range(4)])
    found = visit().evaluate(
        """async (images) => {
            const { openModel } = await import("/model.js");
            const model = await openModel(await (await fetch("/meta.json")).json());
            const answers = await Promise.all(images.map((image) => {  // all at once: the model takes one by one
                const crop = new ImageData(112, 112);
                for (let i = 0; i < 112 * 112; i++)
                    for (let c = 0; c < 3; c++) crop.data[4 * i + c] = image[3 * i + c];
                return model.embed(crop);
            }));
            return answers.map(({ embedding, quality }) => [...embedding].concat(quality));
        }""",
        images.reshape(4, -1).tolist(),
    )
    raw = OnnxEmbedder(site / "nano.onnx")(images)
    norm = np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(np.array(found)[:, :-1], raw / norm, atol=1e-3)
    np.testing.assert_allclose(np.array(found)[:, -1:], norm, rtol=1e-3)


@pytest.mark.parametrize("distance", [20, 36, 60, 75, 180])  # between the eyes; 35 in the crop, so 75 is shrunk first
def test_the_crop_is_pythons(visit: Open, distance: int) -> None:
    image, opaque = photo(5, 420, 460), np.full((420, 460), 255, np.uint8)
    left = np.array((150.3, 140.8))
    eyes = np.stack([left, left + distance * np.array([np.cos(0.3), np.sin(0.3)])])
    found = visit().evaluate(
        """async ([pixels, width, height, eyes, template]) => {
            const { cut, similarity } = await import("/align.js");
            const canvas = Object.assign(document.createElement("canvas"), { width, height });
            const context = canvas.getContext("2d");
            const rgba = Uint8ClampedArray.from(atob(pixels), (c) => c.charCodeAt(0));
            context.putImageData(new ImageData(rgba, width, height), 0, 0);
            return [...cut(context, similarity(eyes, template)).data];
        }""",
        [
            base64.b64encode(np.dstack([image, opaque]).tobytes()).decode(),
            460,
            420,
            eyes.tolist(),
            TEMPLATE[:2].tolist(),
        ],
    )
    pixels = np.array(found).reshape(112, 112, 4)
    assert (pixels[..., 3] == 255).all()
    transform = matrix(eyes)
    wanted = view(image, transform, 112)
    if distance < 70:
        wanted = cv2.warpAffine(image, transform, (112, 112), flags=cv2.INTER_LINEAR)  # type: ignore[assignment]
    difference = np.abs(pixels[..., :3] - wanted.astype(int))
    assert difference.mean() < 0.5
    assert np.percentile(difference, 99.9) <= 4


def test_two_pictures_and_an_answer(visit: Open, site: Path) -> None:
    page = visit()
    crops = []
    for (root, eyes), name in zip(both(page, site), EYES, strict=True):
        image = cv2.imread(str(site / f"{name}.png"))[..., ::-1]
        crops.append(crop(root))
        assert np.abs(crops[-1] - view(image, matrix(eyes), 112).astype(int)).mean() < 0.5
    raw = OnnxEmbedder(site / "nano.onnx")(np.stack(crops))
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    assert float(page.locator("#similarity").inner_text()) == pytest.approx(float(unit[0] @ unit[1]), abs=6e-3)
    shown = page.locator("[data-part=quality]").all_inner_texts()
    assert [float(text) for text in shown] == pytest.approx(np.linalg.norm(raw, axis=1).tolist(), abs=0.06)
    assert page.locator("#verdict").inner_text() == "Probably different people"
    assert "stays below the threshold of 1.000" in page.locator("#detail").inner_text()
    page.locator("#strictness").select_option("1 in 100")
    assert page.locator("#verdict").inner_text() == "Probably the same person"
    assert "about 1 of 100 pairs of different people" in page.locator("#detail").inner_text()
    page.locator(".card").first.get_by_role("button", name="Another picture").click()
    assert page.locator("#verdict").inner_text() == "No answer yet"
    about = page.locator("#about").inner_text()
    assert "nano, 0.0 MiB, 8 numbers" in about
    assert "MIT" in about


def test_an_aligned_crop_is_taken_as_it_is(visit: Open, tmp_path: Path) -> None:
    image = sample(3, 1, 0)[0]
    (tmp_path / "crop.png").write_bytes(png(image))
    root = give(visit(), 1, tmp_path / "crop.png")
    np.testing.assert_array_equal(crop(root), image)
    assert "taken as it is" in root.locator("[data-part=task]").inner_text()
    assert not root.locator(".eye").first.is_visible()
