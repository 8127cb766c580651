"""Norms of branches and maps: against the network taken apart by hand."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mobileface.data.synthetic import sample
from mobileface.understanding.inside import in_batches, norms_of, outputs
from mobileface.understanding.maps import Map, contributions, drawn_over, maps_of
from tests.understanding.networks import SMALL, Sharpness, embedder, lgaf

FACES = np.stack([sample(3, person, 0)[0] for person in range(5)])
PIXELS = torch.from_numpy(FACES).permute(0, 3, 1, 2).float()


@torch.no_grad()
def test_branches_are_those_of_the_network_taken_apart() -> None:
    opened = lgaf()
    net = opened.network
    last = net.norm(net.stages(net.stem((PIXELS - 127.5) / 127.5)))
    wanted = {"embedding": net(PIXELS), "local": net.mhms(last), "global": net.head(last)}
    found = norms_of(opened)(FACES)
    assert list(found) == list(wanted)
    for name, features in wanted.items():
        np.testing.assert_allclose(found[name], features.double().norm(dim=1), rtol=1e-4)


def test_other_networks_have_one_norm() -> None:
    for opened in (embedder(Sharpness()), lgaf(arch=replace(SMALL, attention=False, global_features=False))):
        found = norms_of(opened)(FACES)
        assert list(found) == ["embedding"]
        np.testing.assert_allclose(found["embedding"], np.linalg.norm(opened(FACES), axis=1), rtol=1e-6)


def test_many_images_go_through_in_batches() -> None:
    many = np.concatenate([FACES] * 30)
    sizes = []

    def measure(images: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(images))
        return {"mean": images.mean((1, 2, 3), dtype=np.float64)}

    found = in_batches(measure, many)
    np.testing.assert_allclose(found["mean"], many.mean((1, 2, 3), dtype=np.float64))
    assert sizes == [64, 64, 22]


def test_hooks_are_gone_behind_the_block_also_after_an_error() -> None:
    opened = lgaf()
    with outputs(opened.network, ["norm"]) as found:
        opened(FACES)
    assert found["norm"].shape == (5, 16, 7, 7)
    with pytest.raises(ValueError, match="stop"), outputs(opened.network, ["norm", "mhms"]):
        raise ValueError("stop")
    assert not [part for part in opened.network.modules() if part._forward_hooks]


def test_maps_of_an_lgaf() -> None:
    """Last map, global feature, and a gate for each of two heads and three scales, as the modules give them."""
    opened = lgaf()
    found = maps_of(opened, FACES)
    assert [m.label for m in found[2:]] == [
        f"gate of head {head}, {places}" for head in (1, 2) for places in ("1 place", "3 x 3 places", "5 x 5 places")
    ]
    assert all(m.values.shape == (5, 7, 7) for m in found)
    with torch.no_grad():
        net = opened.network
        last = net.norm(net.stages(net.stem((PIXELS - 127.5) / 127.5)))
    np.testing.assert_allclose(found[0].values, last.abs().mean(1), rtol=1e-3, atol=1e-5)
    for m in found[2:]:
        assert 0 < m.values.min() <= m.values.max() < 1


def test_a_gate_is_what_its_map_is_multiplied_by() -> None:
    opened = lgaf()
    name = "mhms.1.scales.near"
    before, behind = f"{name}.only", f"{name}.lanet"
    with outputs(opened.network, [before, behind]) as found:
        opened(FACES)
    gate = next(m for m in maps_of(opened, FACES) if m.label == "gate of head 2, 3 x 3 places")
    x, y = found[before].double(), found[behind].double()
    where = x.abs() > 0.1
    ratio = torch.from_numpy(gate.values)[:, None].expand_as(x)
    torch.testing.assert_close((y / x)[where], ratio[where], rtol=1e-4, atol=1e-4)


def test_the_printed_lanet_has_one_gate_for_a_whole_map() -> None:
    found = maps_of(lgaf(arch=replace(SMALL, lanet="printed")), FACES)
    assert found[-1].values.shape == (5, 1, 1)
    assert drawn_over(FACES, found[-1]).shape == FACES.shape


def test_contributions_add_up_to_the_norm_of_a_linear_head() -> None:
    """And each is the difference that taking the place away makes along the feature's direction."""
    generator = torch.Generator().manual_seed(0)
    head = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 4 * 4, 6, bias=False)).double()
    features = torch.randn(2, 3, 4, 4, generator=generator, dtype=torch.float64)
    found = contributions(head, features)
    whole = head(features)
    torch.testing.assert_close(found.sum((1, 2)), whole.norm(dim=1))
    without = features.clone()
    without[:, :, 1, 2] = 0
    along = ((whole - head(without)) * whole / whole.norm(dim=1, keepdim=True)).sum(1)
    torch.testing.assert_close(found[:, 1, 2], along)
    assert head[1].weight.grad is None


def test_other_networks_have_the_last_map_only() -> None:
    (found,) = maps_of(embedder(Sharpness()), FACES)
    blocks = np.stack([cv2.resize(face.astype(np.float64), (7, 7), interpolation=cv2.INTER_AREA) for face in FACES])
    np.testing.assert_allclose(found.values, blocks.mean(3), rtol=1e-5)


def test_a_map_is_drawn_where_it_is_high() -> None:
    values = np.zeros((1, 7, 7))
    values[0, 2, 5] = 3.0
    black = np.zeros((1, 112, 112, 3), np.uint8)
    drawn = drawn_over(black, Map("one place", values))[0].astype(int)
    y, x = np.unravel_index(drawn.sum(2).argmax(), (112, 112))
    assert (y // 16, x // 16) == (2, 5)
    assert drawn[y, x, 0] > drawn[y, x, 2]  # yellow, not blue: the colours are RGB
    flat = drawn_over(black, Map("flat", np.ones((1, 7, 7))))[0]
    assert (flat == flat[0, 0]).all()
