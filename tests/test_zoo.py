"""The zoo: the figures that papers print, to the printed digit, and what each entry is for."""

from __future__ import annotations

import dataclasses

import pytest

from mobileface.arch import ACTIVATIONS, LGAF, SEMobileFaceNet, arch_from_dict
from mobileface.zoo import ZOO, find_arch
from search.budget import BUDGETS, judge
from search.cost import cost

STEPS = [f"lfrc-step{step}" for step in range(6)]


def millions(value: int, digits: int = 1) -> str:
    return f"{value / 1e6:.{digits}f}"


def test_names_are_their_own() -> None:
    assert {"micro", "tiny", "student-real", "mobilefacenet", *STEPS} <= set(ZOO)
    assert all(arch.name == name for name, arch in ZOO.items())
    assert all(find_arch(name) is arch for name, arch in ZOO.items())


def test_step_0_is_the_challenges_baseline() -> None:
    """ "y2": printed 933.3M FLOPs; 468.8 MMACs and 2.00 M parameters were counted by hand from its definition."""
    spent = cost(ZOO["lfrc-step0"])
    assert (millions(spent.flops_lfrc), millions(spent.macs)) == ("933.3", "468.8")
    assert millions(spent.params, 2) == "2.00"
    assert ZOO["lfrc-step0"].embedding_dim == 256


def test_step_5_is_the_papers_network() -> None:
    """Table 1: printed 976.6M FLOPs, 282-d; 5.14 M parameters, 5.21 M with running statistics."""
    arch = ZOO["lfrc-step5"]
    spent = cost(arch)
    assert (millions(spent.flops_lfrc), millions(spent.macs)) == ("976.6", "490.2")
    assert f"{spent.size_mib:.2f}" == "19.86"
    assert millions(spent.params, 2) == "5.14"
    assert millions(spent.params + spent.untrained, 2) == "5.21"
    assert millions(spent.folded, 2) == "5.11"
    assert judge(arch, BUDGETS["lfrc-light"])["fits"]


@pytest.mark.parametrize(("reduction", "printed"), [(4, "978.0"), (8, "977.1"), (16, "976.6"), (None, "976.1")])
def test_the_printed_flops_pin_down_the_gate(
    monkeypatch: pytest.MonkeyPatch, reduction: int | None, printed: str
) -> None:
    """Figures of a count by hand for other reductions, and for no gate at all."""
    from mobileface.arch import layers, mobilefacenet

    arch = ZOO["lfrc-step5"]
    if reduction is None:
        plain = tuple(dataclasses.replace(stage, se=False) for stage in arch.stages)
        arch = dataclasses.replace(arch, stages=plain)
    else:
        monkeypatch.setattr(layers, "SE_REDUCTION", reduction)
    caches = (mobilefacenet.bottleneck, layers.squeeze_excitation)
    for cache in caches:
        cache.cache_clear()
    try:
        assert millions(cost(arch).flops_lfrc) == printed
    finally:
        for cache in caches:
            cache.cache_clear()


def test_table_1_row_by_row() -> None:
    """t, c, n, s of the paper; the stem and the embedding behind the GDC are not in these rows."""
    rows = [
        (56, 24, 2, 1),
        (116, 56, 1, 2),
        (116, 56, 6, 1),
        (248, 124, 1, 2),
        (248, 124, 15, 1),
        (512, 256, 1, 2),
        (256, 256, 24, 1),
    ]
    arch = ZOO["lfrc-step5"]
    assert [(s.hidden, s.width, s.depth, s.stride) for s in arch.stages] == rows
    assert all(stage.se and stage.kernel == 3 for stage in arch.stages)
    assert (arch.stem, arch.head, arch.embedding_dim) == (24, 512, 282)


@pytest.mark.parametrize(
    ("name", "ours"),
    [("lfrc-step1", "1077.3"), ("lfrc-step2", "1041.9"), ("lfrc-step3", "1001.9"), ("lfrc-step4", "982.9")],
)
def test_steps_between_count_what_our_reading_of_table_2_counts(name: str, ours: str) -> None:
    """Printed: 1G for steps 1 to 3, which ours pass, and 998.4M for step 4."""
    spent = cost(ZOO[name])
    assert millions(spent.flops_lfrc) == ours
    assert (spent.flops_lfrc > 1e9) == (name != "lfrc-step4")


def test_step_4_with_the_hidden_widths_of_table_1() -> None:
    """988.4M, where 998.4M is printed: the digits are likely swapped there."""
    rows = tuple(
        dataclasses.replace(row, depth=depth)
        for row, depth in zip(ZOO["lfrc-step5"].stages, (2, 1, 6, 1, 16, 1, 23), strict=True)
    )
    step4 = dataclasses.replace(ZOO["lfrc-step5"], stages=rows, embedding_dim=256)
    assert millions(cost(step4).flops_lfrc) == "988.4"


def test_mobilefacenet() -> None:
    spent = cost(ZOO["mobilefacenet"])
    assert (millions(spent.macs), millions(spent.flops_lfrc)) == ("221.0", "439.8")
    assert millions(spent.params, 2) == "1.00"
    assert f"{4 * spent.params / 2**20:.1f}" == "3.8"  # MiB without running statistics


def test_the_student_is_under_its_budget_and_as_wide_as_its_teacher() -> None:
    student = ZOO["student-real"]
    assert cost(student).flops_lfrc <= 200e6
    assert student.embedding_dim == ZOO["mobilefacenet"].embedding_dim == 128


@pytest.mark.parametrize(
    ("name", "gmacs", "gflops", "params", "size"),
    [
        ("iresnet18", "2.610", "5.22", "24.03", "91.7"),
        ("iresnet34", "4.460", "8.91", "34.14", "130.2"),
        ("iresnet50", "6.309", "12.61", "43.59", "166.3"),
        ("iresnet100", "12.090", "24.17", "65.16", "248.6"),
        ("iresnet200", "23.419", "46.82", "118.83", "453.3"),
    ],
)
def test_residual_networks(name: str, gmacs: str, gflops: str, params: str, size: str) -> None:
    """Counted by hand from InsightFace's definition; its README prints 2.6, 6.3, 12.1 and 23.5 GMACs.

    Size: MiB of what its state dict's weights hold, without running statistics; the 512 that stay 1 are among them.
    """
    spent = cost(ZOO[name])
    assert (f"{spent.macs / 1e9:.3f}", f"{spent.flops_lfrc / 1e9:.2f}") == (gmacs, gflops)
    assert millions(spent.params, 2) == params
    assert f"{4 * (spent.params + 512) / 2**20:.1f}" == size


@pytest.mark.parametrize(
    ("name", "mib"), [("iresnet18", 91.658), ("iresnet34", 130.245), ("iresnet50", 166.305), ("iresnet100", 248.590)]
)
def test_exported_residual_networks_weigh_what_the_public_files_weigh(name: str, mib: float) -> None:
    """MiB of InsightFace's ONNX files (challenges/mfr/README.md), which hold folded weights and the graph."""
    assert 0 < mib - cost(ZOO[name]).bytes_by_precision["fp32"] / 2**20 < 0.06


def test_lgaf_is_resnet100_and_its_head() -> None:
    arch = ZOO["lgaf-r100"]
    assert isinstance(arch, LGAF)
    assert arch.plain() == dataclasses.replace(ZOO["iresnet100"], name="lgaf-r100")
    assert (arch.heads, arch.quality, arch.fusion, arch.lanet) == (4, "energy", "add", "map")
    spent, plain = cost(arch), cost(ZOO["iresnet100"])
    width, places = 128, 49
    scales = 512 * width + 9 * 512 * width + 9 * 512 * width + 9 * width * width  # 1x1, 3x3, two stacked 3x3
    lanets, gate = 3 * (width * 16 + 16), 2 * 384 * 24
    assert spent.macs - plain.macs == 4 * (places * (scales + lanets) + gate + 384 * places * 128)


def test_the_small_ones_are_small() -> None:
    assert cost(ZOO["micro"]).macs < cost(ZOO["tiny"]).macs < 10e6
    for name in ("iresnet-micro", "lgaf-micro"):
        assert cost(ZOO[name]).macs < 30e6


@pytest.mark.parametrize("name", ZOO)
def test_entries_are_whole(name: str) -> None:
    arch = ZOO[name]
    assert not isinstance(arch, SEMobileFaceNet) or arch.activation in ACTIVATIONS
    assert arch_from_dict(arch.to_dict()) == arch
    assert cost(arch).params > 0
