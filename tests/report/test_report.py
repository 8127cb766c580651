"""The report of a run: complete, self-contained, escaped; checked with html.parser, not with our own code."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import InputError
from mobileface.report import html, plots, read, text
from mobileface.report.html import write_report
from mobileface.report.sections import data_uri

SCRIPT = "<script>alert(1)</script>_0001.jpg"
MATH = "$x^2$ & \"quoted\" 'name'"
SURROGATE = "caf\udce9/\udcff_0002.jpg"
QUOTE = '" onload="alert(1)" src="https://evil.example/x.png'
HOSTILE = (SCRIPT, MATH, SURROGATE, QUOTE, "\u202egpj.evil\x1b[31m")
TAGS = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "nav", "section", "h1", "h2", "h3",
    "h4", "p", "a", "b", "span", "div", "ul", "li", "dl", "dt", "dd", "table", "thead", "tbody", "tr", "th",
    "td", "figure", "figcaption", "img", "pre", "code", "wbr",
    "svg", "g", "path", "defs", "use", "text", "clippath", "rect",
}  # fmt: skip
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


def picture(rng: np.random.Generator, kind: str = ".jpg") -> str:
    """A 112 x 112 face-like image, encoded, as base64."""
    image = np.full((112, 112, 3), rng.integers(40, 220, 3), np.uint8)
    skin = [int(v) for v in rng.integers(90, 230, 3)]
    cv2.ellipse(image, (56, 60), (36, 46), 0, 0, 360, skin, -1)
    for x in (41, 71):
        cv2.circle(image, (x, 50), 5, (20, 20, 20), -1)
    cv2.ellipse(image, (56, 84), (14, 5), 0, 0, 180, (30, 30, 120), 2)
    return base64.b64encode(cv2.imencode(kind, image)[1].tobytes()).decode()


def card() -> dict[str, Any]:
    stages = [
        ("stem", 56, 1, 5_620_000, 2_160), ("stage 1", 56, 2, 33_400_000, 21_500),
        ("stage 2", 28, 5, 41_800_000, 143_000), ("stage 3", 14, 7, 17_600_000, 251_000),
        ("stage 4", 7, 3, 4_300_000, 160_000), ("head", 7, 1, 3_200_000, 65_500),
        ("embedding", 1, 1, 65_536, 65_792),
    ]  # fmt: skip
    macs = sum(row[3] for row in stages)
    return {
        "name": "distill-real",
        "created": "2025-03-04 12:30:11 UTC",
        "arch": {"family": "se-mobilefacenet"},
        "budget": {
            "arch": "student-100", "rule": "lfrc", "macs": macs, "flops_lfrc": 2 * macs, "params": 708_952,
            "size_mib": 2.7, "embedding_dim": 128, "fits": True, "over": {},
            "bytes": {"fp32": 2_800_000, "fp16": 1_400_000, "int8": 760_000},
            "budget": {
                "name": "lfrc-light", "rule": "lfrc", "max_flops": 1e9, "max_size_mib": 20, "max_dim": 512,
            },
            "per_stage": [
                dict(zip(("stage", "grid", "blocks", "macs", "flops_lfrc", "params", "bytes"),
                         (s, g, b, m, 2 * m, p, 4 * p), strict=True))
                for s, g, b, m, p in stages
            ],
        },
        "data": {
            "sha256": "5d" * 32, "images": 13_594, "identities": 481, "skipped": [SCRIPT, SURROGATE],
            "licence": "research only; <b>see the sources</b>",
            "sources": [
                {"name": "bolly100", "images": 6_412, "identities": 95, "sha256": "a1" * 32},
                {"name": MATH, "images": 7_182, "identities": 386, "sha256": "b2" * 32},
            ],
        },
        "teacher": {
            "path": "teacher/mobilefacenet.onnx", "sha256": "c3" * 32,
            "contract": {"scale": 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
        },
        "training": {
            "images_seen": 1_200_000, "seconds": 3_345.2, "device": "cpu", "precision": "bf16",
            "compile": True, "torch_threads": 2, "identities": 458, "train_images": 13_000, "held_out_images": 594,
        },
        "versions": {"mobileface": "0.1.0", "python": "3.11.9", "torch": "2.13.0", "numpy": "2.4.6"},
        "results": [{"set": "lfw", "accuracy": 0.9523, "std": 0.0086, "model": "network"}],
    }  # fmt: skip


def log_lines(rng: np.random.Generator, steps: int = 3000) -> list[str]:
    rows: list[dict[str, Any]] = [{"event": "start", "images": 0}]
    for i in range(1, steps + 1):
        done = i / steps
        distill = 0.25 + 0.75 * np.exp(-5 * done) + rng.normal(0, 0.02)
        arc = 4 + 14 * np.exp(-3 * done) + rng.normal(0, 0.6)
        rows.append(
            {
                "event": "step", "images": 400 * i, "epoch": 400 * i / 13594, "seconds": 1.1 * i,
                "lr": 2e-3 * np.sin(np.pi * done**0.5), "loss": distill + 0.1 * arc,
                "terms": {"distill": distill, f"arcface {SCRIPT}": arc},
                "images_per_s": 358 + rng.normal(0, 9),
            }
        )  # fmt: skip
        if i % 250 == 0:
            good = 0.97 - 0.3 * np.exp(-4 * done)
            rows.append(
                {
                    "event": "validation",
                    "images": 400 * i,
                    "auc": good + 0.02,
                    "accuracy": good,
                    "pairs": 2000,
                }
            )
    rows.insert(1500, {"event": "resume", "images": 590_000})
    return [json.dumps(row) for row in rows]


def judged(rng: np.random.Generator, model: str, name: str, apart: float) -> dict[str, Any]:
    same, different = rng.normal(apart, 0.13, 3000).clip(-1, 1), rng.normal(0.04, 0.11, 3000).clip(-1, 1)
    edges = np.linspace(-1, 1, 81)
    cuts = np.sort(np.concatenate([same, different]))[::-1][::40]
    return {
        "model": model, "model_sha256": "d4" * 32, "set": name, "protocol": "10-fold verification",
        "pairs": 6000, "images": 7701, "tar_impostors": {"source": "all pairs", "pairs": 29_000_000},
        "versions": {"python": "3.11.9", "onnxruntime": "1.22.0"},
        "accuracy": 0.9523 if apart > 0.5 else 0.8121, "std": 0.0086,
        "tar": {"1e-1": 0.98, "1e-2": 0.913, "1e-3": 0.762, "1e-4": 0.55},
        "eer": 0.047, "auc": 0.98912, "threshold": 0.31, "flip": "sum", "data_sha256": "e5" * 32,
        "contract": {"scale": 127.5, "mean": [1, 1, 1], "std": [1, 1, 1], "layout": "nchw", "color": "rgb"},
        "roc": {"fpr": [float((different >= c).mean()) for c in cuts],
                "tpr": [float((same >= c).mean()) for c in cuts]},
        "histogram": {"edges": edges.tolist(), "same": np.histogram(same, edges)[0].tolist(),
                      "different": np.histogram(different, edges)[0].tolist()},
        "seconds": 31.2, "folds": [{"accuracy": 0.9, "threshold": 0.3}] * (2 if ":" in name else 10),
    }  # fmt: skip


def pairs(rng: np.random.Generator, names: tuple[str, ...], low: float, high: float) -> list[dict[str, Any]]:
    return [
        {
            "a": names[i % len(names)], "b": f"Some_Person/Some_Person_{i:04d}.jpg",
            "score": float(rng.uniform(low, high)),
            "image_a": picture(rng), "image_b": picture(rng, ".png" if i == 1 else ".jpg"),
        }
        for i in range(8)
    ]  # fmt: skip


def write_run(run: Path) -> Path:
    """A whole run folder with hostile names wherever a name can stand."""
    rng = np.random.default_rng(7)
    for folder in ("evaluation", "export", "checkpoints"):
        (run / folder).mkdir(parents=True)
    (run / "card.json").write_text(json.dumps(card()))
    (run / "arch.json").write_text("{}")
    plan = f"name: distill-real\nseed: 1\ndata:\n  train:\n  - folder: bolly100\n    exclude: [{SCRIPT!r}]\n"
    (run / "plan.yaml").write_bytes(plan.encode() + b"# caf\xe9 \x00 in Latin-1\n")
    (run / "log.jsonl").write_text("\n".join(log_lines(rng)) + '\n{"event": "step", "ima')
    for name, apart in (("lfw", 0.56), ("cfp-fp:9-10", 0.35)):
        for suffix, model in (("", "network"), (".onnx", "distill-real.onnx")):
            result = judged(np.random.default_rng(3), model, name, apart)
            (run / "evaluation" / f"{name.replace(':', '_')}{suffix}.json").write_text(json.dumps(result))
    worst = {
        "false_matches": pairs(rng, HOSTILE, 0.4, 0.7),
        "false_non_matches": [
            *pairs(rng, ("Jos\u00e9_0001.jpg",), -0.1, 0.1),
            {
                "a": "no image",
                "b": "not base64",
                "score": 0.1,
                "image_a": "https://evil.example/x.png",
                "image_b": "@@",
            },
            {
                "a": "svg",
                "b": QUOTE,
                "score": 0.1,
                "image_b": QUOTE,
                "image_a": base64.b64encode(b"<svg/>").decode(),
            },
        ],
    }
    (run / "evaluation" / "lfw.worst.json").write_text(json.dumps(worst))
    export = {
        "file": "distill-real.onnx", "format": "onnx", "precision": "fp32", "bytes": 2_871_204,
        "sha256": "f6" * 32, "opset": 18, "metadata": {"mobileface.input": "RGB 0..255"},
        "parity": {"batches": [1, 8], "max_abs": 2.1e-6, "min_cosine": 0.9999998, "tolerance": 1e-4,
                   "images": 64, "passed": True},
    }  # fmt: skip
    (run / "export" / "onnx.json").write_text(json.dumps(export))
    return run


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


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_run(tmp_path_factory.mktemp("runs") / "distill-real")
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return Page((run / "report.html").read_text(encoding="utf-8"))


def test_no_script_and_no_request(page: Page) -> None:
    assert_self_contained(page)


def test_hostile_names_are_shown_as_text(page: Page) -> None:
    for name in (
        SCRIPT,
        MATH,
        "caf\\udce9/\\udcff_0002.jpg",
        QUOTE,
        "\\u202egpj.evil\\x1b[31m",
        "José_0001.jpg",
    ):
        assert name in page.text, name
    assert f"exclude: ['{SCRIPT}']" in page.text
    assert "# caf\\xe9 \\x00 in Latin-1" in page.text


def test_ids_are_unique_and_every_reference_has_its_target(page: Page) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    used = {href[1:] for href in page.values("href")}
    used |= set(re.findall(r"url\(#([^)]+)\)", " ".join(page.values("clip-path") + page.values("style"))))
    assert used
    assert used <= set(ids)


def test_pictures_have_words_and_are_the_ones_stored(run: Path, page: Page) -> None:
    images = page.values("src")
    assert len(images) == 32  # 16 pairs with valid images; the two with none or false ones show a placeholder
    assert all(alt.startswith("face crop ") for alt in page.values("alt"))
    assert len(page.values("alt")) == 32
    stored = json.loads((run / "evaluation" / "lfw.worst.json").read_text())
    worst = max(stored["false_matches"], key=lambda pair: pair["score"])
    assert images[0].partition(",")[2] == worst["image_a"]
    labels = [value for tag, name, value in page.attributes if name == "aria-label" and tag == "div"]
    assert page.tags.count("svg") == 10  # loss, 2 terms, lr, speed, validation; 2 sets x (ROC, scores)
    assert len(labels) >= 10
    assert all(labels)


@pytest.mark.parametrize(
    "words",
    [
        "On lfw it judges 95.23 % of 6,000 pairs rightly",
        "21 % of the FLOPs allowed",
        "FLOPs by the rule “lfrc” 212.0 M 1,000.0 M 21.2 %",
        "stage 2 28 × 28 5 41.8 M 83.6 M 39.4 % 143,000 558.6 KiB",
        "total 106.0 M 212.0 M 708,952 2.70 MiB",
        "TAR at FAR 1e-3 76.20 % 76.20 % share of true pairs accepted when 1 in 1,000",
        "29,000,000 (all pairs)",
        "distill-real.onnx ONNX fp32 2.74 MiB ✓ passed 0.9999998 2.1e-06 0.0001 64 1, 8 18",
        "lfw ONNX 95.23 % 95.23 % +0.00 points ✓ yes cfp-fp:9-10 ONNX 81.21 %",
        "research only; <b>see the sources</b>",
        "2 images could not be read",
        "over the 2 folds of the protocol this varies by ± 0.86 points",
        "± 0.86 points over the 10 folds",
        "A part of the pairs: one of 10 on lfw, one of 2 on cfp-fp:9-10.",
        "people held out 23 images held out 594",
        "distillation The network learns to give the embeddings of a larger network",
        "onnxruntime 1.22.0",
        "steps in the log 3,000",
        "5d" * 32,
        "f6" * 32,
    ],
)
def test_says(page: Page, words: str) -> None:
    assert words in page.text


def test_every_section_explains_itself(page: Page) -> None:
    source = (Path(html.__file__).parent / "report.html").read_text(encoding="utf-8")
    for section in source.split("<h2>")[1:-1]:  # the last one is the list of words itself
        assert '<p class="why">' in section[:200]
    assert "Not run." in page.text  # the second set has no pairs stored


def test_same_files_same_bytes(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    write_report(copy)
    assert (copy / "report.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_folder_with_a_plan_only_says_not_run(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("name: empty\n")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert_self_contained(page)
    assert page.text.count("Not run.") == 8
    assert page.text.count("not run") == 4
    assert "svg" not in page.tags


@pytest.mark.parametrize("part", ["card.json", "plan.yaml", "log.jsonl", "evaluation", "export", "arch.json"])
def test_any_part_may_be_missing(run: Path, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("training_curve", "validation_curve", "roc", "histogram"):
        monkeypatch.setattr(plots, name, lambda *_: "<svg></svg>")
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / part) if (copy / part).is_dir() else (copy / part).unlink()
    assert_self_contained(Page(write_report(copy).read_text(encoding="utf-8")))


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not a run folder: it holds none of plan\.yaml"):
        write_report(tmp_path)
    with pytest.raises(InputError, match="not a folder"):
        write_report(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b'{"name": "x"', "not readable as JSON"),
        (b"[1, 2]", "found a JSON list, want an object"),
        (b"[" * 100_000, "not readable as JSON"),
        (b'{"a": "' + b"x" * 5000 + b'"}', "larger than 4096 bytes"),
        (b'{"a": ' + b"9" * 4500 + b"}", "larger than 4096 bytes"),
    ],
)
def test_damaged_json_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, wanted: str) -> None:
    monkeypatch.setattr(read, "JSON_LIMIT", 4096 if len(content) < 10_000 else 1 << 20)
    (tmp_path / "report.html").write_text("the old one")
    (tmp_path / "card.json").write_bytes(content)
    with pytest.raises(InputError, match=wanted) as caught:
        write_report(tmp_path)
    assert str(tmp_path / "card.json") in str(caught.value)
    assert (tmp_path / "report.html").read_text() == "the old one"


def test_log_is_thinned_and_survives_damage(tmp_path: Path) -> None:
    rows = [json.dumps({"event": "step", "images": i, "loss": 1.0}) for i in range(9_001)]
    rows[5000:5000] = [
        "\x00\xff not JSON",
        "[]",
        json.dumps({"event": "resume"}),
        json.dumps({"event": "novel"}),
    ]
    path = tmp_path / "log.jsonl"
    path.write_bytes("\n".join(rows).encode() + b'\n{"event": "step", "images": 9')
    log = read.read_log(path)
    assert (log.rows, log.resumed, log.damaged) == (9_001, 1, 2)
    images = [row["images"] for row in log.steps]
    assert 500 < len(images) <= read.LOG_POINTS
    assert images[0] == 0
    assert images[-1] == 9_000
    assert set(np.diff(images)[:-1]) == {np.diff(images)[0]}


@given(st.integers(0, 300), st.integers(2, 20))
def test_thinned_keeps_first_and_last_within_the_limit(rows: int, limit: int) -> None:
    thinned = read.Thinned(limit)
    for i in range(rows):
        thinned.add({"i": i})
    kept = [row["i"] for row in thinned.rows()]
    assert len(kept) <= limit
    assert kept == sorted(set(kept))
    assert kept[:1] == list(range(rows))[:1]
    assert kept[-1:] == list(range(rows))[-1:]


def test_values_that_are_not_finite_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [
        '{"event": "step", "images": 1, "loss": NaN, "terms": {"arc": Infinity}}',
        '{"event": "step", "images": 2, "loss": 1e999, "terms": 3}',
        '{"event": "step", "images": 3, "loss": 2.0, "terms": {"arc": 2.0}, "lr": "0.1"}',
        '{"event": "step", "images": "4", "loss": 2.0}',
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(rows) + "\n")
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert "2 logged steps hold a value that is not a finite number" in page.text
    assert page.tags.count("svg") == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    "name", "created", "budget", "data", "teacher", "training", "versions", "results", "per_stage", "fits",
    "sources", "skipped", "set", "stage", "grid", "macs", "flops_lfrc", "contract", "parity", "batches",
    "tolerance", "passed", "accuracy", "tar", "rule", "bytes", "over", "phases", "losses", "folds", "std",
    "unfinished", "identities", "images", "train_images", "held_out_images",
]  # fmt: skip
OBJECTS = st.dictionaries(
    st.sampled_from(KEYS), JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=5), max_size=8
)


@settings(max_examples=40, deadline=None)
@given(OBJECTS, OBJECTS, OBJECTS, st.text(st.characters(exclude_categories=()), max_size=200))
def test_no_content_of_the_files_breaks_the_page(
    card: dict[str, Any], result: dict[str, Any], export: dict[str, Any], plan: str
) -> None:
    files = read.RunFiles(
        Path("run"),
        card,
        plan,
        None,
        {plan: {"network": result, "onnx": export}},
        {plan: result},
        {"onnx": export},
    )
    rendered = html.render(files)
    rendered.encode("utf-8")  # no lone surrogate is left
    assert_self_contained(Page(rendered))


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


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60), st.integers(1, 20))
def test_running_mean_against_a_slow_loop(values: list[float], width: int) -> None:
    half = width // 2
    slow = [np.mean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]
    np.testing.assert_allclose(plots.running_mean(np.array(values), width), slow, atol=1e-6)


def test_far_axis_is_logarithmic() -> None:
    svg = plots.roc("r", [([0.0, 1e-4, 1e-2, 1.0], [0.1, 0.5, 0.9, 1.0])])
    root = ElementTree.fromstring(svg)
    labels = ("1 in 10,000", "1 in 1,000", "1 in 100")
    ticks = [next(float(e.get("x", "")) for e in root.iter("text") if e.text == label) for label in labels]
    assert ticks[1] - ticks[0] == pytest.approx(ticks[2] - ticks[1], abs=0.1)
    assert ticks[1] - ticks[0] > 30


@pytest.mark.parametrize("points", [1, 2, 3])
def test_curves_of_few_points_are_drawn(points: int) -> None:
    some = [1.0] * points
    assert plots.training_curve("a", list(range(points)), some).startswith("<svg")
    assert plots.validation_curve("b", [(list(range(points)), some)]).startswith("<svg")
    assert plots.roc("c", [([0.0] * points, some)]).startswith("<svg")
    assert plots.histogram("d", list(range(points + 1)), [0] * points, [0] * points, None).startswith("<svg")


def test_colours_come_from_the_style_sheet() -> None:
    svg = plots.histogram("h", [0, 0.5, 1], [1, 2], [2, 1], 0.4)
    style = (Path(plots.__file__).parent / "style.css").read_text(encoding="utf-8")
    used = set(re.findall(r"var\((--[a-z]+)\)", svg))
    assert {"--first", "--second", "--ink"} <= used
    assert all(f"{name}:" in style for name in used)
    assert not re.findall(r"#0[0-9a-f]{5}\b", svg)
    for scheme in ("prefers-color-scheme: dark", "@media print"):
        assert all(f"{name}:" in style[style.index(scheme) :] for name in used)


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
