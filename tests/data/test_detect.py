"""What is between a photograph and cv2.FaceDetectorYN: sizes, colours, where points lie, what is no detector."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from mobileface.data.align import TEMPLATE, similarity
from mobileface.data.detect import MAX_MODEL_BYTES, SIDES, Detector, Face
from mobileface.data.photos import LOGGING
from mobileface.errors import InputError
from tests.data.painted import CORNERS, PaintedYN, UprightYN, paint, painted_detector

YUNET = os.environ.get("MOBILEFACE_YUNET")


def shown(detector: Detector) -> list[tuple[int, int]]:
    """(width, height) of each look, forgotten afterwards."""
    net = detector._net
    assert isinstance(net, PaintedYN)
    sizes, net.sizes = net.sizes, []
    return sizes


def black(width: int, height: int) -> np.ndarray:
    return np.zeros((height, width, 3), np.uint8)


def error_px(face: Face, points: np.ndarray) -> float:
    return float(np.linalg.norm(face.landmarks - points, axis=1).max())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(300, 1000), st.integers(300, 1000), st.floats(0.45, 0.8), st.floats(-40, 40), st.floats(0.35, 1))
def test_points_and_box_are_px_of_the_photograph(
    detector: Detector, width: int, height: int, share: float, degrees: float, score: float
) -> None:
    photo = black(width, height)
    scale = share * min(width, height) / 112 / 1.6
    points = paint(photo, scale, width * 0.5, height * 0.25, degrees, score)
    corners = (CORNERS - TEMPLATE[0]) @ np.linalg.inv(similarity(points)[:, :2]).T + points[0]
    assume((corners > 2).all() and (corners < (width - 3, height - 3)).all())  # all of it is in the picture
    [face] = detector.find(photo, 0.3)
    shrink = max(1, max(width, height) / SIDES[0])
    assert error_px(face, points) < 1.5 * shrink
    assert face.score == pytest.approx(score, abs=0.01)
    wanted = np.concatenate([corners.min(0), np.ptp(corners, axis=0)])
    np.testing.assert_allclose(face.box, wanted, atol=3 * shrink)


def test_the_order_of_the_points_is_that_of_the_template(detector: Detector) -> None:
    photo = black(200, 200)
    paint(photo, 1, 40, 40)
    [face] = detector.find(photo, 0.6)
    np.testing.assert_allclose(face.landmarks - 40, TEMPLATE, atol=0.5)
    left_eye, right_eye = face.landmarks[:2]
    assert left_eye[0] < right_eye[0]


def test_the_best_face_comes_first(detector: Detector) -> None:
    photo = black(600, 200)
    for left, score in ((0, 0.7), (200, 0.95), (400, 0.4)):
        paint(photo, 1, left, 40, score=score)
    assert [round(face.score, 1) for face in detector.find(photo, 0.6)] == [0.9, 0.7, 0.4]


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        ((300, 200), [(300, 200)]),  # never enlarged
        ((640, 480), [(640, 480)]),
        ((1000, 500), [(640, 320), (1000, 500)]),
        ((1500, 3000), [(320, 640), (960, 1920)]),
        ((9000, 1), [(640, 1), (1920, 1)]),
    ],
)
def test_a_larger_look_follows_where_no_face_was_seen(
    detector: Detector, size: tuple[int, int], wanted: list[tuple[int, int]]
) -> None:
    assert detector.find(black(*size), 0.6) == []
    assert shown(detector) == wanted


def test_a_face_of_the_score_ends_the_search(detector: Detector) -> None:
    photo = black(1200, 1200)
    paint(photo, 5, 300, 300, score=0.7)
    assert [round(face.score, 1) for face in detector.find(photo, 0.6)] == [0.7]
    assert len(shown(detector)) == 1
    assert [round(face.score, 1) for face in detector.find(photo, 0.9)] == [0.7, 0.7]  # seen in both looks
    assert len(shown(detector)) == 2


def test_all_faces_are_looked_for_at_every_side(detector: Detector) -> None:
    """A large face that both looks see, once; small ones that only the second sees."""
    photo = black(1900, 1600)
    large = paint(photo, 9, 100, 100, score=0.8)
    small = [paint(photo, 0.2, 1300, 200 + 400 * n, score=0.7) for n in range(3)]
    assert len(detector.find(photo, 0.6)) == 1
    assert len(shown(detector)) == 1
    found = detector.find(photo, 0.6, every=True)
    assert shown(detector) == [(640, 539), (1900, 1600)]
    assert len(found) == 4
    assert [face.score for face in found] == sorted((face.score for face in found), reverse=True)
    by_size = sorted(found, key=lambda face: -face.box[2])
    assert error_px(by_size[0], large) < 5
    for points in small:
        assert min(error_px(face, points) for face in by_size[1:]) < 1.5
    beside = detector.find(black(600, 400), 0.6, every=True)
    assert (beside, shown(detector)) == ([], [(600, 400)])


def test_of_boxes_that_overlap_the_surest_stays(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """IoU by hand: of the first two 80 * 100 / (2 * 100 * 100 - 80 * 100) = 0.67; of the third with both < 0.3."""
    boxes = [(0, 0, 100, 100, 0.7), (20, 0, 100, 100, 0.9), (70, 40, 100, 100, 0.5)]
    rows = np.array([[*box[:4], *np.ravel(TEMPLATE), box[4]] for box in boxes], np.float32)
    monkeypatch.setattr(detector._net, "detect", lambda image: (1, rows))
    assert [round(face.score, 1) for face in detector.find(black(300, 300), 0.6, every=True)] == [0.9, 0.5]
    assert len(detector.find(black(300, 300), 0.6)) == 3  # YuNet itself has suppressed what overlaps in one look


def test_a_face_is_scaled_about_the_corner_of_its_photograph() -> None:
    face = Face(0.9, np.array([10.0, 20, 30, 40]), TEMPLATE)
    twice = face.scaled(2)
    assert twice.box.tolist() == [20, 40, 60, 80]
    np.testing.assert_allclose(twice.landmarks, 2 * TEMPLATE + 0.5)  # the centre of px 0 lies at 0.5 of 2 px
    np.testing.assert_array_equal(twice.scaled(0.5).landmarks, TEMPLATE)
    assert face.scaled((2, 3)).box.tolist() == [20, 60, 60, 120]


def test_numbers_that_are_not_finite_are_no_face(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.full((3, 15), 50, np.float32)
    rows[0, 3], rows[1, 14] = np.nan, np.inf
    monkeypatch.setattr(detector._net, "detect", lambda image: (1, rows))
    assert [face.score for face in detector.find(black(100, 100), 0.6)] == [50]


# ---- the second look


@pytest.mark.parametrize("degrees", [-30, 0, 25])
@pytest.mark.parametrize("scale", [0.7, 5.0])
def test_a_second_look_at_the_upright_face(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, degrees: float, scale: float
) -> None:
    """The stand-in misses half of a tilt: after looking at what is left of it, a quarter."""
    detector = painted_detector(tmp_path, monkeypatch, UprightYN)
    photo = black(1300, 1300)
    points = paint(photo, scale, 500, 400, degrees)

    def tilt(face: Face) -> float:
        matrix = similarity(face.landmarks)[:, :2] @ np.linalg.inv(similarity(points)[:, :2])
        return float(np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0])))

    [face] = detector.find(photo, 0.6)
    assert tilt(face) == pytest.approx(degrees / 2, abs=1.5)
    again = detector.again(photo, face)
    assert tilt(again) == pytest.approx(degrees / 4, abs=1.5)
    assert (again.score, again.box.tolist()) == (face.score, face.box.tolist())
    assert shown(detector)[-1] == (320, 320)


def test_a_second_look_that_sees_another_face_or_none_changes_nothing(detector: Detector) -> None:
    face = Face(0.9, np.zeros(4), TEMPLATE + 200)
    assert detector.again(black(500, 500), face) is face
    photo = black(500, 500)
    paint(photo, 1, 290, 200)
    assert detector.again(photo, face) is face


def test_landmarks_that_coincide_have_no_upright(detector: Detector) -> None:
    with pytest.raises(InputError, match="coincide"):
        detector.again(black(50, 50), Face(0.9, np.zeros(4), np.full((5, 2), 7.0)))


# ---- files that are no detector


def test_a_file_that_is_missing_or_too_large(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.onnx: no such face detector; wanted a YuNet file"):
        Detector(tmp_path / "no.onnx")
    with pytest.raises(InputError, match="is a folder; wanted a YuNet file such as"):
        Detector(tmp_path)
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(InputError, match=r"empty\.onnx: is empty; wanted a YuNet face detector"):
        Detector(tmp_path / "empty.onnx")
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(MAX_MODEL_BYTES + 1)
    with pytest.raises(InputError, match="is larger than"):
        Detector(tmp_path / "large.onnx")


def foreign() -> bytes:
    """A sound network that finds no faces."""
    onnx = pytest.importorskip("onnx")
    shape = [1, 3, 64, 64]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", values[:1], values[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("content", [b"hello", bytes(1000), foreign])
def test_a_foreign_file_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: object) -> None:
    path = tmp_path / "other.onnx"
    path.write_bytes(content() if callable(content) else content)  # type: ignore[arg-type]
    level = LOGGING.getLogLevel()
    with pytest.raises(InputError) as caught:
        Detector(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: OpenCV cannot run it as a face detector (")
    assert text.endswith("); wanted a YuNet file")
    assert "\n" not in text
    assert capfd.readouterr().err == ""
    assert LOGGING.getLogLevel() == level


# ---- the real one


@pytest.mark.skipif(YUNET is None, reason="MOBILEFACE_YUNET names no YuNet file")
@pytest.mark.parametrize("side", [300, 600, 2400])
def test_yunet_finds_a_real_face(side: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The portrait that matplotlib brings; points by eye, to 5 px of its 512x600."""
    cbook = pytest.importorskip("matplotlib.cbook")
    with cbook.get_sample_data("grace_hopper.jpg") as file:
        portrait = cv2.imdecode(np.frombuffer(file.read(), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert portrait is not None
    share = side / 600
    photo = np.asarray(cv2.resize(portrait, None, fx=share, fy=share, interpolation=cv2.INTER_AREA), np.uint8)
    detector = Detector(Path(YUNET or ""))
    face = detector.find(photo, 0.6)[0]
    by_eye = np.array([(222, 190), (306, 190), (263, 237), (228, 271), (301, 271)])
    for found in (face, detector.again(photo, face)):
        assert np.abs(found.landmarks / share - by_eye).max() < 10
    assert face.score > 0.8
    assert capfd.readouterr().err == ""
