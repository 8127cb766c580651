"""Predicted milliseconds against work counted on built networks; tables from files; what the benchmark makes."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from benchmarks import latency_probes
from benchmarks.latency_probes import Row, cuts, draw, piece, steady, written
from benchmarks.latency_table import block_times, fitted, left_out
from export.images import parity_images
from mobileface.arch import ACTIVATIONS, Arch, SEMobileFaceNet
from mobileface.errors import InputError
from mobileface.models.build import network
from mobileface.models.mobilefacenet import Bottleneck
from mobileface.zoo import ZOO
from search.latency import FOLDER, KINDS, TABLES, LatencyTable, find_table, parse_table
from tests.strategies import ODD, archs, examples

# Milliseconds that no real machine has: all differ, so that no kind of work can stand for another.
MADE_UP: dict[str, Any] = {
    "runtime": "onnx",
    "precision": "fp32",
    "ms": {kind: round(0.01 * (i + 3) ** 0.5, 6) for i, kind in enumerate(KINDS)},
}


@pytest.fixture
def table() -> LatencyTable:
    return parse_table(MADE_UP, "made up")


def file_of(folder: Path, data: Any) -> str:
    path = folder / "table.json"
    path.write_text(json.dumps(data))
    return str(path)


def counted(arch: SEMobileFaceNet) -> dict[str, float]:
    """Units of work by kind, seen on the built network while an image goes through it."""
    net, done = network(arch).eval(), defaultdict[str, float](float, call=1)
    kinds = {nn.PReLU: "prelu", nn.LeakyReLU: "leaky_relu", nn.Hardswish: "hard_swish"}

    def values(map_: torch.Tensor) -> float:
        """Millions, of channels in whole groups of 16."""
        return sum(16 for _ in range(0, map_.shape[1], 16)) * map_.shape[2] * map_.shape[3] / 1e6

    def conv(layer: nn.Conv2d, given: Any, output: torch.Tensor) -> None:
        done["layer"] += 1
        out, inputs, side, _ = layer.weight.shape
        macs = values(output) * inputs * side * side
        if output.shape[-1] == 1:
            done["gdc" if side > 1 else "vector weights"] += macs
        elif layer.groups > 1:
            done[f"depthwise {side}x{side} / {layer.stride[0]}"] += macs
            done["uneven depthwise"] += macs if out not in range(0, 10_000, 4) else 0
            done["unfilled depthwise"] += macs if out not in range(0, 10_000, 16) else 0
        elif side > 1:
            done["convolution"] += macs
        else:
            done["pointwise"] += macs
            done["pointwise weights"] += inputs * out / 1e6

    def pool(layer: nn.Module, given: Any, output: torch.Tensor) -> None:
        done["se"] += 1
        done["se values"] += values(given[0])

    def act(layer: nn.Module, given: Any, output: torch.Tensor) -> None:
        if output.shape[-1] > 1:
            done[next(name for kind, name in kinds.items() if isinstance(layer, kind))] += values(output)

    def block(layer: Bottleneck, given: Any, output: torch.Tensor) -> None:
        done["residual"] += values(output) if layer.residual else 0

    for part in net.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(conv)
        elif isinstance(part, nn.AdaptiveAvgPool2d):
            part.register_forward_hook(pool)
        elif isinstance(part, tuple(kinds)):
            part.register_forward_hook(act)
        elif isinstance(part, Bottleneck):
            part.register_forward_hook(block)
    with torch.inference_mode():
        net(torch.zeros(1, 3, 112, 112))
    return done


# -- milliseconds


@examples(40)
@given(archs())
def test_the_sum_over_the_walk_is_the_work_of_the_built_network(arch: SEMobileFaceNet) -> None:
    wanted = sum(units * MADE_UP["ms"][kind] for kind, units in counted(arch).items())
    assert parse_table(MADE_UP, "made up").ms(arch) == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("arch", [ODD, ZOO["student-real"], ZOO["mobilefacenet"]], ids=lambda arch: arch.name)
def test_so_it_is_for_known_networks(arch: SEMobileFaceNet, table: LatencyTable) -> None:
    wanted = sum(units * MADE_UP["ms"][kind] for kind, units in counted(arch).items())
    assert table.ms(arch) == pytest.approx(wanted, rel=1e-9)


def test_every_kind_of_work_is_done_by_some_network() -> None:
    probes = [counted(draw(seed, "probe")) for seed in range(8)]
    assert set(KINDS) == {kind for done in probes for kind, units in done.items() if units > 0}


def test_a_layer_more_takes_longer(table: LatencyTable) -> None:
    arch = ZOO["tiny"]
    assert isinstance(arch, SEMobileFaceNet)
    for stage in range(len(arch.stages)):
        rows = list(arch.stages)
        rows[stage] = replace(rows[stage], depth=rows[stage].depth + 1)
        assert table.ms(replace(arch, stages=tuple(rows))) > table.ms(arch)


@pytest.mark.parametrize("name", ["iresnet18", "lgaf-micro"])
def test_other_families_have_no_table(name: str, table: LatencyTable) -> None:
    with pytest.raises(InputError, match=f"{name} is a network of .*, the tables hold those of se_mobilefacenet"):
        table.ms(ZOO[name])


# -- tables


def test_a_table_comes_from_a_file(tmp_path: Path) -> None:
    found = find_table(file_of(tmp_path, {**MADE_UP, "environment": {"cpu": "x"}, "blocks": {}}))
    assert (found.runtime, found.precision, dict(found.times)) == ("onnx", "fp32", MADE_UP["ms"])


@pytest.mark.parametrize("name", [path.stem for path in sorted(FOLDER.glob("*.json"))])
def test_tables_that_are_there_can_be_read_and_say_whose_they_are(name: str) -> None:
    found = find_table(name)
    assert f"{found.runtime}-{found.precision}" == name
    sizes = [found.ms(ZOO[arch]) for arch in ("micro", "student-real", "lfrc-step5")]
    assert sizes == sorted(sizes)
    assert 0 < sizes[0] < sizes[2] < 1000


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ([], "'runtime' is missing or no str, wanted a latency table"),
        ({**MADE_UP, "precision": 8}, "'precision' is missing or no str"),
        ({**MADE_UP, "ms": [1]}, "'ms' is missing or no dict"),
        (
            {**MADE_UP, "ms": {}},
            "ms: 'convolution' is missing; benchmarks.latency_table fills it anew; known: convolution,",
        ),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "pointwize": 1}}, "is no kind of work (did you mean 'pointwise'?)"),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "x" * 10**5: 1}}, "is no kind of work; known"),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "se": -1}}, "ms: se is -1, wanted milliseconds from 0 to 1e6"),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "se": True}}, "ms: se is True, wanted milliseconds"),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "call": "1"}}, "ms: call is '1', wanted milliseconds"),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "call": float("nan")}}, "ms: call is nan, wanted milliseconds"),
        ({**MADE_UP, "ms": {**MADE_UP["ms"], "call": 10**400}}, "ms: call is a number of 1329 bits, wanted"),
    ],
    ids=range(11),
)
def test_a_table_that_is_wrong_is_one_line(tmp_path: Path, data: Any, text: str) -> None:
    with pytest.raises(InputError) as caught:
        find_table(file_of(tmp_path, data))
    assert text in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "cannot be read as a latency table"),
        (b"\xff\xfe\x00", "cannot be read as a latency table"),
        (b"[" * 10**5, "cannot be read as a latency table"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read as a latency table"),
        (b" " * ((1 << 20) + 1), "is larger than 1048576 bytes; not a latency table"),
    ],
    ids=range(5),
)
def test_a_hostile_file_is_one_line(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "table.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=text):
        find_table(str(path))


def test_names_that_are_not_known(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no latency table is called 'onnx-fp33' \(did you mean 'onnx-fp32'\?\)"):
        find_table("onnx-fp33")
    with pytest.raises(InputError, match=r"none\.json: no such file; wanted a latency table"):
        find_table(str(tmp_path / "none.json"))


# -- the benchmark


def made_up_rows(seeds: range) -> list[Row]:
    """Probes on a machine whose milliseconds are exactly the made-up ones."""
    table, rows = parse_table(MADE_UP, "made up"), []
    for seed in seeds:
        arch = draw(seed, f"probe-{seed}")
        upto, at = [table.times["call"]], cuts(arch)
        for block in arch.walk():
            if f"{block.names()[0]}.{block.layers[0].name}" in at:
                upto.append(upto[-1])
            upto[-1] += block.repeat * table.block_ms(block)
        rows.append(
            {
                "arch": arch.to_dict(),
                "cuts": at,
                "ms": dict.fromkeys(TABLES, upto),
                "reference": dict.fromkeys(TABLES, 3.0),
            }
        )
    return rows


def test_the_fit_finds_what_the_times_were_made_of(table: LatencyTable) -> None:
    found = LatencyTable("onnx", "fp32", fitted(made_up_rows(range(30)), "onnx-fp32"))
    unseen: list[Arch] = [*(draw(seed, "x") for seed in range(100, 110)), ZOO["lfrc-step5"], ZOO["tiny"]]
    for arch in unseen:
        assert found.ms(arch) == pytest.approx(table.ms(arch), rel=1e-3)


def test_the_fit_bears_noise(table: LatencyTable) -> None:
    rows, rng = made_up_rows(range(30)), random.Random(0)
    for row in rows:
        row["ms"] = {name: [ms * rng.gauss(1, 0.03) for ms in upto] for name, upto in row["ms"].items()}
    found = LatencyTable("onnx", "fp32", fitted(rows, "onnx-fp32"))
    assert all(ms >= 0 for ms in found.times.values())
    errors = [abs(found.ms(arch) / table.ms(arch) - 1) for arch in (draw(seed, "x") for seed in range(100, 120))]
    assert float(np.median(errors)) < 0.03


def test_what_another_exporter_wrote_is_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arch = draw(0, "x")
    monkeypatch.setattr(latency_probes, "_reference", lambda folder: {})
    monkeypatch.setattr(latency_probes, "exported", lambda arch, folder: {})  # no file, so no time
    kept = {**latency_probes.measured(arch, ["a"], tmp_path), "ms": {"onnx-fp32": [1.0]}}
    (tmp_path / "x.json").write_text(json.dumps(kept))
    assert latency_probes.measured(arch, ["a"], tmp_path)["ms"] == kept["ms"]
    assert latency_probes.measured(arch, ["b"], tmp_path)["ms"] == {}
    (tmp_path / "x.json").write_text(json.dumps({**kept, "exporter": "of another day"}))
    assert latency_probes.measured(arch, ["a"], tmp_path)["ms"] == {}


def test_whole_networks_that_weigh_more_are_predicted_better_where_pieces_mislead(table: LatencyTable) -> None:
    rows = made_up_rows(range(30))
    for row in rows:
        row["ms"] = {name: [*(1.2 * ms for ms in upto[:-1]), upto[-1]] for name, upto in row["ms"].items()}
    off = [left_out(rows, "onnx-fp32", whole) for whole in (1, 4, 16)]
    assert off[0] > 1.5 * off[1] > 1.5 * off[2]


def test_the_reference_puts_slow_times_right() -> None:
    rows, rng = made_up_rows(range(5)), random.Random(0)
    slowed = []
    for row in rows:
        slow = {name: rng.uniform(1, 3) for name in TABLES}
        ms = {name: [ms * slow[name] for ms in row["ms"][name]] for name in TABLES}
        slowed.append({**row, "ms": ms, "reference": {name: 3.0 * slow[name] for name in TABLES}})
    for name in TABLES:
        usual = float(np.median([row["reference"][name] for row in slowed])) / 3.0
        for row, found in zip(rows, steady(slowed), strict=True):
            assert found["ms"][name] == pytest.approx([ms * usual for ms in row["ms"][name]])


def test_times_of_blocks_are_differences(table: LatencyTable) -> None:
    [row] = made_up_rows(range(1))
    arch = draw(0, "probe")
    found = block_times([row], "onnx-fp32")
    runs = [block for block in arch.walk() if block.prefix not in ("stem", "head", "gdc", "embedding")]
    assert len(found) == len(runs) == 6
    assert sorted(found.values()) == pytest.approx(sorted(table.block_ms(block) for block in runs), abs=1e-4)
    assert found["28px 64-68-20 5x5/2 se prelu"] == max(found.values())


def test_probes_differ_and_have_every_activation_and_kernel() -> None:
    probes = [draw(seed, "probe") for seed in range(30)]
    assert len(set(probes)) == 30
    assert {arch.activation for arch in probes} == set(ACTIVATIONS)
    assert {(row.kernel, row.se, row.stride) for arch in probes for row in arch.stages} >= {
        (kernel, se, stride) for kernel in (3, 5) for se in (True, False) for stride in (1, 2)
    }


@pytest.mark.slow
def test_a_piece_computes_what_the_layer_behind_it_reads(tmp_path: Path) -> None:
    """Of all four files, against the torch network; int8 within its rounding."""
    arch = ZOO["micro"]
    assert isinstance(arch, SEMobileFaceNet)
    net, crops = network(arch).eval(), parity_images(most=16)
    seen: dict[str, np.ndarray] = {}
    hooks = [
        net.get_submodule(name).register_forward_pre_hook(lambda _, given, at=name: seen.update({at: given[0].numpy()}))
        for name in cuts(arch)
    ]
    with torch.inference_mode():
        net(torch.from_numpy(crops[:1]).permute(0, 3, 1, 2).float())
    for hook in hooks:
        hook.remove()
    for name, whole in written(net, crops, tmp_path).items():
        for conv in cuts(arch):
            found, wanted = answer(piece(whole, conv), crops[:1]), seen[conv]
            if whole.suffix == ".tflite":
                found = found.transpose(0, 3, 1, 2)
            assert found.shape == wanted.shape
            off = float(np.abs(found - wanted).max() / np.abs(wanted).max())
            assert off < (1e-5 if name.endswith("fp32") else 0.25), (name, conv)


def answer(file: Path, images: np.ndarray) -> np.ndarray:
    """What a piece gives for one image, as float."""
    pixels = images.astype(np.float32)
    if file.suffix == ".onnx":
        from mobileface.embedders.onnx import open_session

        found: np.ndarray = open_session(file, 1).run(None, {"input": pixels.transpose(0, 3, 1, 2)})[0]
        return found
    from mobileface.embedders.tflite import open_interpreter

    interpreter = open_interpreter(file, 1)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    [details] = interpreter.get_output_details()
    value, (scale, zero) = interpreter.get_tensor(details["index"]), details["quantization"]
    return (value.astype(np.float32) - zero) * np.float32(scale) if scale else value
