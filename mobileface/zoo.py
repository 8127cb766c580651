"""The architectures by name: one row per stage, the paper's table above it."""

from __future__ import annotations

from pathlib import Path

from mobileface.arch import LGAF, Arch, IResNet, SEMobileFaceNet, Stage, load_arch
from mobileface.errors import InputError, nearest


def _row(hidden: int, width: int, depth: int, stride: int, se: bool = True) -> Stage:
    return Stage(hidden, width, depth, stride, se=se)


def _plain(hidden: int, width: int, depth: int, stride: int) -> Stage:
    return Stage(hidden, width, depth, stride, se=False)


def _lfrc_step(step: int, conv: tuple[int, int, int, int, int], num: tuple[int, int, int, int]) -> Arch:
    """Steps 1-4 of Table 2, which prints only channel counts (C) and repeats (N); the rows are our reading.

    conv: C of conv1..conv5; num: N of conv2..conv5. Stem and first width are conv1's C; hidden is conv2's C in
    the first stage, twice the width before each reduction and in the two middle stages, conv4's C in the last.
    """
    c1, c2, c3, c4, c5 = conv
    n2, n3, n4, n5 = num
    rows = (
        _row(c2, c1, n2, 1),
        _row(2 * c2, c2, 1, 2),
        _row(2 * c2, c2, n3, 1),
        _row(2 * c3, c3, 1, 2),
        _row(2 * c3, c3, n4, 1),
        _row(2 * c4, c4, 1, 2),
        _row(c4, c4, n5, 1),
    )
    return SEMobileFaceNet(f"lfrc-step{step}", c1, rows, c5, 256)


_ARCHS: tuple[Arch, ...] = (
    # The smallest: for tests.
    SEMobileFaceNet("micro", 8, (_row(16, 8, 1, 2), _row(16, 16, 2, 2), _row(32, 16, 1, 2)), 32, 32),
    # For the demo on synthetic faces: seconds of training on two CPU cores.
    SEMobileFaceNet(
        "tiny",
        16,
        (_row(16, 24, 1, 2), _row(48, 32, 2, 2), _row(96, 64, 2, 2)),
        128,
        64,
    ),
    # Ours, for recipes/distill-real: under 200 MFLOPs. Narrow reductions, most of the work at 14x14 and 7x7 and one
    # slope for all channels were chosen for speed of training on a CPU (benchmarks/train_speed.py is to measure it).
    SEMobileFaceNet(
        "student-real",
        16,
        (
            _plain(24, 48, 1, 2),  # 28x28
            _plain(96, 96, 1, 2),  # 14x14
            _row(192, 96, 6, 1),
            _plain(192, 192, 1, 2),  # 7x7
            _row(384, 192, 4, 1),
        ),
        512,
        128,
        activation="leaky_relu",
    ),
    # MobileFaceNets (2018), Table 1; "y1" in InsightFace: 221.0 MMACs, 1.00 M parameters
    SEMobileFaceNet(
        "mobilefacenet",
        64,
        (
            _plain(128, 64, 1, 2),  # 28x28
            _plain(128, 64, 4, 1),
            _plain(256, 128, 1, 2),  # 14x14
            _plain(256, 128, 6, 1),
            _plain(512, 128, 1, 2),  # 7x7
            _plain(256, 128, 2, 1),
        ),
        512,
        128,
        stem_depthwise=True,
    ),
    # Step 0, the challenge's baseline "y2" (Table 2 prints 933.3M): no SE, blocks 2, 8, 16, 4
    SEMobileFaceNet(
        "lfrc-step0",
        64,
        (
            _plain(64, 64, 2, 1),  # 56x56
            _plain(128, 64, 1, 2),  # 28x28
            _plain(128, 64, 8, 1),
            _plain(256, 128, 1, 2),  # 14x14
            _plain(256, 128, 16, 1),
            _plain(512, 128, 1, 2),  # 7x7
            _plain(256, 128, 4, 1),
        ),
        512,
        256,
    ),
    # Table 2: conv1..conv5 C, conv2..conv5 N                         # printed; for ours: search.budget
    _lfrc_step(1, (30, 62, 128, 256, 512), (2, 8, 18, 16)),  # 1G
    _lfrc_step(2, (28, 60, 128, 256, 512), (2, 8, 16, 19)),  # 1G
    _lfrc_step(3, (26, 58, 128, 256, 512), (2, 6, 16, 21)),  # 1G
    _lfrc_step(4, (24, 56, 124, 256, 512), (2, 6, 16, 23)),  # 998.4M (988.4M with the rows of Table 1)
    # Step 5, Table 1 of the paper, row by row: 976.6M
    SEMobileFaceNet(
        "lfrc-step5",
        24,
        (
            _row(56, 24, 2, 1),  # 56x56
            _row(116, 56, 1, 2),  # 28x28
            _row(116, 56, 6, 1),
            _row(248, 124, 1, 2),  # 14x14
            _row(248, 124, 15, 1),
            _row(512, 256, 1, 2),  # 7x7
            _row(256, 256, 24, 1),
        ),
        512,
        282,
    ),
    # InsightFace's arcface_torch. Its README's "FLOPs" are GMACs          # printed: GMACs; MiB of its ONNX files
    IResNet("iresnet18", (2, 2, 2, 2)),  # 2.6; 91.658
    IResNet("iresnet34", (3, 4, 6, 3)),  # -; 130.245
    IResNet("iresnet50", (3, 4, 14, 3)),  # 6.3; 166.305
    IResNet("iresnet100", (3, 13, 30, 3)),  # 12.1; 248.590
    IResNet("iresnet200", (6, 26, 60, 6)),  # 23.5; -
    # A quarter of the channels or less: for tests.
    IResNet("iresnet-micro", (1, 1, 2, 1), (8, 12, 16, 64), 32),
    # LGAF on ResNet100, b = 4, energy, add (the paper's Tables 2 to 4); the paper prints no cost
    LGAF("lgaf-r100", (3, 13, 30, 3)),
    LGAF("lgaf-micro", (1, 1, 2, 1), (8, 12, 16, 64), 32),
)

ZOO: dict[str, Arch] = {arch.name: arch for arch in _ARCHS}


def find_arch(name: str) -> Arch:
    """The architecture by zoo name, arch file (YAML or JSON) or run folder."""
    if name in ZOO:
        return ZOO[name]
    path = Path(name)
    if path.exists() or path.suffix in (".yaml", ".yml", ".json"):
        return load_arch(path)
    raise InputError(f"no architecture is called {name!r}{nearest(name, ZOO)}; known: {', '.join(ZOO)}, or a file")
