"""Random architectures, small enough to build and run in milliseconds."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from mobileface.arch import ACTIVATIONS, Arch, Stage


def examples(count: int) -> settings:
    """So many random examples, however busy the machine is."""
    return settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])


CHANNELS = st.integers(1, 24)
WIDTHS = st.sampled_from([1, 6, 8, 17, 32])  # few, so that neighbouring rows are often equal; 32: SE with two inside


@st.composite
def stages(draw: DrawFn, max_depth: int = 3) -> Stage:
    """A row; its hidden width is one number, or one for each block as after pruning."""
    depth = draw(st.integers(1, max_depth))
    each = st.lists(st.sampled_from([3, 5, 16]), min_size=depth, max_size=depth).map(tuple)
    hidden = draw(CHANNELS | each)
    stride, kernel = draw(st.sampled_from([1, 2])), draw(st.sampled_from([3, 5]))
    return Stage(hidden, draw(WIDTHS), depth, stride, kernel, draw(st.booleans()))


def archs(max_stages: int = 5, max_depth: int = 3) -> SearchStrategy[Arch]:
    """Members of the design space. From the fourth reduction on, maps have odd sides (7, 4, 2, 1)."""
    rows = st.lists(stages(max_depth), min_size=1, max_size=max_stages).map(tuple)
    return st.builds(
        Arch,
        st.just("random"),
        stem=CHANNELS | WIDTHS,
        stages=rows,
        head=CHANNELS,
        embedding_dim=CHANNELS,
        stem_depthwise=st.booleans(),
        activation=st.sampled_from(ACTIVATIONS),
    )


# Odd maps, a reduction of a 1x1 map, pruned rows: what random members seldom show.
ODD = Arch(
    "odd",
    9,
    (
        Stage((4, 7), 9, 2, 2, 5),  # 28x28
        Stage(6, 9, 3, 2, 3, se=False),  # 14x14
        Stage(5, 16, 1, 2),  # 7x7
        Stage((8, 8, 3), 16, 3, 2, 5),  # 4x4
        Stage(8, 33, 1, 2),  # 2x2
        Stage(8, 33, 2, 2),  # 1x1
        Stage(8, 33, 2, 2, 5),  # 1x1 again
    ),
    13,
    11,
    stem_depthwise=True,
    activation="hard_swish",
)
