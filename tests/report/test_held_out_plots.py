"""The plots of held-out people: one where they were judged on whole images, one more for each side."""

from __future__ import annotations

from mobileface.report.curves import validation_plots

ROWS = [
    {"images": 100 * n, "auc": 0.8 + n / 100, "eer": 0.2, "auc_at_7": 0.6 + n / 50, "auc_at_112": 0.9, "auc_at_x": 9.0}
    for n in range(1, 4)
]


def test_whole_images_are_one_plot() -> None:
    rows = [{key: row[key] for key in ("images", "auc", "eer")} for row in ROWS]
    (plot,) = validation_plots(rows)
    assert plot["title"] == "Held-out people"
    assert plot["note"] == "area under the ROC 83.00\u00a0% at the end, best 83.00\u00a0%"


def test_each_side_is_a_plot_of_its_own() -> None:
    plots = validation_plots(ROWS)
    titles = ["Held-out people", "Held-out people, one at 7 px", "Held-out people, one at 112 px"]
    assert [plot["title"] for plot in plots] == titles
    assert plots[0]["note"].startswith("mean area under the ROC 83.00\u00a0%")
    assert plots[1]["note"] == "area under the ROC 66.00\u00a0% at the end, best 66.00\u00a0%"
    assert len({plot["svg"] for plot in plots}) == 3


def test_no_rows_no_plot() -> None:
    assert validation_plots([]) == []
    assert validation_plots([{"images": 1, "auc_at_7": "x"}]) == []
