"""TAR over all pairs, broken off: what is kept, what goes on, and what is refused."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
import torch

from mobileface.errors import CheckFailed, InputError
from mobileface.evaluation import at_scale
from mobileface.evaluation.at_scale import Settings
from mobileface.evaluation.at_scale_count import Task, count_block
from mobileface.evaluation.at_scale_pairs import open_pairs_at_scale
from mobileface.evaluation.at_scale_windows import Window
from tests.evaluation.at_scale_pairs import rows_of, same, scored


def test_it_goes_on_where_it_was_stopped(
    two: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    files, wanted = two
    monkeypatch.setattr(at_scale, "MAX_BLOCK", 400)
    monkeypatch.setattr(Settings, "workers", 1)  # one after the other
    count, done = at_scale.count_block, []

    def counted(pairs: Any, rows: range, *more: Any) -> Any:
        if len(done) == stop:
            raise KeyboardInterrupt
        done.append(rows.start)
        return count(pairs, rows, *more)

    monkeypatch.setattr(at_scale, "count_block", counted)
    stop = 3
    with pytest.raises(KeyboardInterrupt):
        scored(files, "1e-3,1e-7", out=tmp_path / "out", precision="fp32")
    assert done == [0, 375, 750]
    damaged = tmp_path / "out" / "pass-0" / "block-1.counts"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    stop = 99
    result = scored(files, "1e-3,1e-7", out=tmp_path / "out", memory_mib=64)  # other settings make no difference
    assert done == [0, 375, 750, 375, 1125]
    assert [record.message for record in caplog.records] == [f"{damaged}: damaged, counted anew"]
    same(rows_of(result), {far: wanted[far] for far in ("1e-3", "1e-7")})
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == result
    assert rows_of(scored(files, "1e-3,1e-7", out=tmp_path / "out")) == rows_of(result)
    assert len(done) == 5


def test_a_block_is_left_as_soon_as_somebody_asks(two: Any) -> None:
    """An interrupt does not wait for a block of minutes."""
    files, asked = two[0], []

    def stopped() -> bool:
        asked.append(len(asked))
        return len(asked) == 2

    pairs = open_pairs_at_scale(files[0][0], files[1][0], [labels for _, labels in files])
    with pytest.raises(CancelledError):
        count_block(pairs, range(900), Task("fp32", (Window((9,)),), 900, 64, 99), torch.device("cpu"), stopped)
    assert len(asked) == 2  # of three tiles


def test_workers_are_told_to_stop(two: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_scale, "MAX_BLOCK", 400)
    monkeypatch.setattr(Settings, "workers", 2)
    started = threading.Event()

    def block(pairs: Any, rows: range, task: Any, device: Any, stopped: Callable[[], bool]) -> Any:
        if rows.start:
            started.set()
            while not stopped():
                time.sleep(0.001)
            raise CancelledError
        started.wait()
        raise CheckFailed("the first one fails")

    monkeypatch.setattr(at_scale, "count_block", block)
    with pytest.raises(CheckFailed, match="the first one fails"):
        scored(two[0], precision="fp32")


def test_counts_of_other_inputs_are_refused(two: Any, tmp_path: Path) -> None:
    files, _ = two
    scored(files, "1e-3", out=tmp_path)
    with pytest.raises(InputError, match=r"holds counts of other inputs \(fars differs\); wanted another --out"):
        scored(files, "1e-4", out=tmp_path)
    with pytest.raises(InputError, match=r"other inputs \(probe_sha256 differs\)"):
        scored(files[::-1], "1e-3", out=tmp_path)
    with pytest.raises(InputError, match=r"other inputs \(gallery_sha256 differs\)"):
        scored(files[:1], "1e-3", out=tmp_path)  # the probes alone: their pairs are other ones
    (tmp_path / "inputs.json").write_text("[")
    with pytest.raises(InputError, match=r"other inputs \(inputs\.json differs\)"):
        scored(files, "1e-3", out=tmp_path)


def test_a_folder_of_something_else_is_refused(two: Any, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match=r"holds model\.safetensors, and no counts; wanted a new folder"):
        scored(two[0], "1e-3", out=tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors: is a file; wanted a folder"):
        scored(two[0], "1e-3", out=tmp_path / "model.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_the_same_rates_in_other_words_go_on(two: Any, tmp_path: Path) -> None:
    first = scored(two[0], "1e-3,1e-2", out=tmp_path)
    again = scored(two[0], "0.01,0.001", out=tmp_path)
    assert [again["tar"][far] for far in ("0.001", "0.01")] == [first["tar"][far] for far in ("1e-3", "1e-2")]


def test_a_damaged_task_is_named(two: Any, tmp_path: Path) -> None:
    scored(two[0], "1e-3", out=tmp_path)
    (tmp_path / "pass-0" / "task.json").write_text('{"windows": [{"what": 1}]}')
    with pytest.raises(InputError, match=r"task\.json: is damaged; remove the folder"):
        scored(two[0], "1e-3", out=tmp_path)
