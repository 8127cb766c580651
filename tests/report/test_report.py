"""The report of a run: complete, self-contained, escaped; checked with html.parser, not with our own code."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from mobileface.errors import InputError
from mobileface.report import html, plots
from mobileface.report.html import write_report
from tests.report.page import Page, assert_self_contained
from tests.report.run_folder import MATH, QUOTE, SCRIPT, write_run


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


def test_the_size_at_the_top_is_that_of_the_file_in_fp32(page: Page) -> None:
    answer = " ".join(page.text.split("Size of the ")[1].split()[:5])
    assert answer == "ONNX fp32 file 2.74 MiB", answer


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
        "distill-real.onnx ONNX fp32 2.74 MiB ✓ passed 0.9999998 0.9999999 2.1e-06 0.0001 64 1, 8",
        "distill-real-int8.onnx ONNX int8 878.9 KiB",
        "With everything in int8 the mean cosine is 0.97621; with stages.0.0 (2.4 % of the work) in float it is",
        "layer.11 depthwise 1,728 0.011 0.02 layer.10",
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
