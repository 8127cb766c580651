"""TAR over all pairs against the full matrix of scores: ties, strangers, precisions, blocks, samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mobileface.errors import CheckFailed, InputError
from mobileface.evaluation import at_scale, at_scale_count
from mobileface.evaluation.at_scale import Settings, summary
from mobileface.evaluation.at_scale_count import PRECISIONS, exact_scores, screening_error
from mobileface.evaluation.at_scale_windows import Sample
from tests.evaluation.at_scale_pairs import FARS, Rows, brute, people, rows_of, same, scored, signs, write


@pytest.mark.parametrize("precision", ["auto", *PRECISIONS])
@pytest.mark.parametrize("block", [10**6, 400])
def test_two_files_are_the_full_matrix(two: Any, precision: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    files, wanted = two
    monkeypatch.setattr(at_scale, "MAX_BLOCK", block)
    monkeypatch.setattr(at_scale, "PRODUCT", 512 if block > 400 else 96)
    result = scored(files, precision=precision)
    same(rows_of(result), wanted)
    assert (result["pairs"], result["impostors"] + result["genuine"]) == (1500 * 2100, 1500 * 2100)
    assert result["tar"] == {far: row[2] / result["genuine"] for far, row in wanted.items()}


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_one_file_with_itself(tmp_path: Path, precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each pair once, no row with itself."""
    rows, person = people(1300, 64, 3)
    files = [write(tmp_path, "all", rows, person)]
    for block, product in ((10**6, 300), (700, 128)):
        monkeypatch.setattr(at_scale, "MAX_BLOCK", block)
        monkeypatch.setattr(at_scale, "PRODUCT", product)
        result = scored(files, precision=precision)
        same(rows_of(result), brute([(rows, person)], FARS))
        assert (result["pairs"], result["gallery"]) == (1300 * 1299 // 2, None)


@pytest.mark.parametrize("sides", [1, 2])
def test_rows_of_zeros_are_never_accepted_and_always_counted(tmp_path: Path, sides: int) -> None:
    """What `clean` and `embed` write where nothing could be read. At FAR 0.5 a score of 0 would make a difference."""
    data = [people(300, 16, seed) for seed in range(sides)]
    for n, (rows, _) in enumerate(data):
        rows[[n, 7, 8, *range(200, 240)]] = 0
    result = scored([write(tmp_path, f"s{n}", *side) for n, side in enumerate(data)], "0.5,0.1,1e-3")
    same(rows_of(result), brute(data, "0.5,0.1,1e-3"))
    assert result["pairs"] == (300 * 300 if sides == 2 else 300 * 299 // 2)
    assert result["probe"]["empty"] == {"count": 43, "rows": [0, 7, 8, *range(200, 217)]}
    assert summary(result)[1].startswith("s0.bin: 43 rows are all zero (0, 7, 8, 200, ")
    assert summary(result)[1].endswith(", 216, ...); no pair with them is accepted")


def test_too_many_rows_of_zeros_leave_no_threshold(tmp_path: Path) -> None:
    rows, person = people(100, 16, 0)
    rows[:80] = 0
    with pytest.raises(InputError, match=r"s\.bin: \d+ impostor pairs have no row of zeros; wanted more for this FAR"):
        scored([write(tmp_path, "s", rows, person)], "0.5")


def test_each_process_has_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The current GPU is that of a thread, and blocks are counted in threads."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert Settings().on == Settings(device="cuda").on == torch.device("cuda", 3)
    assert Settings(device="cpu").on == torch.device("cpu")


@settings(max_examples=20)
@given(
    st.integers(0, 10**6), st.integers(2, 40), st.integers(2, 40), st.sampled_from([4, 16, 64]),
    st.sampled_from(list(PRECISIONS)), st.booleans(), st.sampled_from(["0.5,0.1", "0.25,0.05,1e-9"]),
)  # fmt: skip
def test_ties_are_counted_as_whole_numbers(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int, count: int, others: int, dim: int, precision: str, alone: bool, fars: str,
) -> None:  # fmt: skip
    """Scores are whole numbers here: counted in Python's integers, equal to the last bit."""
    sides = [signs(count, dim, seed), signs(others, dim, seed + 1)][: 1 if alone else 2]
    pairs = [
        (int(a @ b), bool(p == q >= 0))
        for i, (a, p) in enumerate(zip(*sides[0], strict=True))
        for j, (b, q) in enumerate(zip(*sides[-1], strict=True))
        if not alone or i < j
    ]
    genuine, impostors = ([score for score, mated in pairs if mated is kind] for kind in (True, False))
    folder = tmp_path_factory.mktemp("ties")
    files = [write(folder, f"side{n}", *side) for n, side in enumerate(sides)]
    if not genuine or not impostors:
        with pytest.raises(InputError, match="wanted genuine and impostor pairs"):
            scored(files, fars)
        return
    result = scored(files, fars, precision=precision)
    for row in result["rows"]:
        refused = sorted(impostors)[::-1][int(float(row["far"]) * len(impostors) + 1e-9)]
        assert row["refused"] == refused / dim
        assert row["accepted_impostors"] == sum(score > refused for score in impostors) <= row["allowed"]
        assert row["accepted_genuine"] == sum(score > refused for score in genuine)
        assert row["threshold"] == np.nextafter(refused / dim, 2)


@pytest.mark.parametrize("sample", [[], [0.99] * 3000, [-0.99] * 3000, [0.2] * 3000])
def test_a_wrong_sample_costs_passes_and_nothing_else(
    two: Any, sample: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    files, wanted = two
    wrong = Sample(np.array(sample, np.float32), 1500 * 2100)
    monkeypatch.setattr(at_scale, "draw_sample", lambda *arguments: wrong)
    result = scored(files, precision="fp32")
    same(rows_of(result), wanted)
    assert len(result["screened_by"]) > 1


def test_few_kept_scores_are_enough(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the scores of a window are too many to be kept they are counted in bins; the next pass looks into one."""
    files, wanted = two
    task = at_scale._next_task
    monkeypatch.setattr(at_scale, "_next_task", lambda *a: replace(task(*a), most=3))
    result = scored(files)
    same(rows_of(result), wanted)
    assert len(result["screened_by"]) > 2


def test_workers_take_blocks_side_by_side(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    files, wanted = two
    monkeypatch.setattr(Settings, "workers", 3)
    threads = torch.get_num_threads()
    same(rows_of(scored(files)), wanted)
    assert torch.get_num_threads() == threads


def test_exact_scores_follow_their_rule() -> None:
    draw = np.random.default_rng(0)
    first, second = draw.normal(size=(2, 5000, 30)).astype(np.float32)
    found = exact_scores(first, second)
    for n in (0, 1, 2047, 2048, 4999):
        total = 0.0
        for a, b in zip(first[n].tolist(), second[n].tolist(), strict=True):
            total += a * b
        assert found[n] == total
    np.testing.assert_array_equal(found, exact_scores(second, first))
    np.testing.assert_array_equal(found[77:78], exact_scores(first[77:78], second[77:78]))


def errors(precision: str, units: Rows) -> Rows:
    """How far the product of unit rows (N, D) in a precision is from `exact_scores`, (N, N)."""
    rows = torch.from_numpy(units).to(PRECISIONS[precision])
    first, second = (index.reshape(-1) for index in np.indices((len(units), len(units))))
    wanted = exact_scores(units[first], units[second]).reshape(len(units), -1)
    return np.abs((rows @ rows.T).double().numpy() - wanted)


@pytest.mark.parametrize("dim", [1, 64, 282, 512])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_product_errs_by_more_than_its_bound(dim: int, precision: str) -> None:
    """Random rows and rows of one sign."""
    rows = np.random.default_rng(dim).normal(size=(160, dim))
    rows[80:] = np.abs(rows[80:])
    units = torch.nn.functional.normalize(torch.from_numpy(rows)).float().numpy()
    assert errors(precision, units).max() <= screening_error(precision, dim)
    assert screening_error(precision, dim) < {"bf16": 1.6e-2, "fp32": 1e-4, "fp64": 1e-12}[precision]


def test_the_worst_rows_for_bf16_stay_within_its_bound() -> None:
    """Numbers in the middle between two of bf16, all rounded so that the score grows."""
    rest, powers = (1 + 2.0**-8) ** -2, []  # its digits to the base 4 make rows of length one
    for power in range(1, 12):
        powers += [power] * int(rest * 4.0**power)
        rest %= 4.0**-power
    draw, largest = np.random.default_rng(0), 0.0
    for _ in range(100):
        down = draw.random(len(powers)) < 0.4
        first = 2.0 ** -np.array(powers) * (1 + 2.0**-8 + np.where(down, -1, 1) * 2.0**-22)
        units = np.stack([first, np.where(down, -first, first)]).astype(np.float32)
        np.testing.assert_allclose((units.astype(np.float64) ** 2).sum(axis=1), 1, atol=1e-6)
        largest = max(largest, errors("bf16", units).max())
    assert 0.009 < largest <= screening_error("bf16", len(powers))


def test_a_device_that_errs_is_found_out(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_scale_count, "screening_error", lambda precision, dim: 1e-7)
    with pytest.raises(CheckFailed, match=r"a bf16 product errs by 0\.00\d+; wanted at most 1e-07"):
        scored(two[0], precision="bf16")


def test_the_summary_tells_the_counts(two: Any) -> None:
    files, wanted = two
    result = scored(files, "1e-3")
    first, second = summary(result)
    assert first.startswith(f"3,150,000 pairs, {result['genuine']:,} genuine; 50-d; screened in ")
    assert second == (
        f"TAR {wanted['1e-3'][2] / result['genuine']:.6f} at FAR 1e-3: {wanted['1e-3'][2]:,} genuine and "
        f"{wanted['1e-3'][1]:,} impostor pairs (allowed {result['rows'][0]['allowed']:,}) above "
        f"{result['rows'][0]['refused']:.7f}"
    )
    assert summary(scored(files, "1e-7"))[1].endswith("; too few impostor pairs to measure this rate")
