"""The table of public releases: whole networks from files, and what is said of files that are something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mobileface.errors import InputError
from mobileface.models.build import network
from mobileface.models.foreign import misfit, slots
from mobileface.releases import KINDS, find_kind, read_release
from mobileface.zoo import ZOO
from tests.models.publics import AdaFace, ArcFace, MobileFaceNet, scrambled

State = dict[str, Tensor]
FULL: dict[str, Callable[[], nn.Module]] = {
    "adaface-ir18": lambda: AdaFace((2, 2, 2, 2)),
    "arcface-iresnet18": lambda: ArcFace((2, 2, 2, 2)),
    "mobilefacenet-y1": lambda: MobileFaceNet(512),
}
# state dicts of all sizes without their numbers
SHAPES: dict[str, Callable[[], nn.Module]] = {
    **FULL,
    "adaface-ir34": lambda: AdaFace((3, 4, 6, 3)),
    "adaface-ir50": lambda: AdaFace((3, 4, 14, 3)),
    "adaface-ir101": lambda: AdaFace((3, 13, 30, 3)),
    "arcface-iresnet34": lambda: ArcFace((3, 4, 6, 3)),
    "arcface-iresnet50": lambda: ArcFace((3, 4, 14, 3)),
    "arcface-iresnet100": lambda: ArcFace((3, 13, 30, 3)),
    "arcface-iresnet200": lambda: ArcFace((6, 26, 60, 6)),
    "mxnet-iresnet34": lambda: ArcFace((3, 4, 6, 3), eps=2e-5),
    "mxnet-iresnet50": lambda: ArcFace((3, 4, 14, 3), eps=2e-5),
    "mxnet-iresnet100": lambda: ArcFace((3, 13, 30, 3), eps=2e-5),
}


def shapes_of(name: str) -> State:
    """The state dict of a public network, without values."""
    with torch.device("meta"):
        return SHAPES[name]().state_dict()


def hint(folder: Path, state: State, kind: str) -> str:
    """The one line on a file that is no `kind`."""
    path = folder / "x.pth"
    torch.save({name: torch.zeros(()).expand(tensor.shape) for name, tensor in state.items()}, path)
    with pytest.raises(InputError, match=rf"^{path}: is no {kind}; tensors: ") as caught:
        read_release(path, find_kind(kind))
    assert "\n" not in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: is no {kind}; tensors: ")


# -- whole networks


@pytest.mark.parametrize("name", FULL)
def test_a_file_of_full_size_gives_the_embeddings_of_its_own_code(name: str, tmp_path: Path) -> None:
    public = scrambled(FULL[name]())
    torch.save(public.state_dict(), tmp_path / "x.pth")
    kind = find_kind(name)
    arch, state = read_release(tmp_path / "x.pth", kind)
    net = network(arch)
    net.load_state_dict(state)
    images = np.random.default_rng(0).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)  # RGB
    given = images[..., ::-1] if kind.color == "bgr" else images
    with torch.inference_mode():
        found = net.eval()(torch.from_numpy(images).permute(0, 3, 1, 2).float())
        answer = public(torch.from_numpy(((given / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).astype(np.float32)))
    wanted = answer[0] * answer[1] if isinstance(answer, tuple) else answer
    assert found.shape == (2, 512)
    assert (found - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_every_row_has_names_and_shapes_of_its_public_network() -> None:
    assert SHAPES.keys() == KINDS.keys()
    for name, kind in KINDS.items():
        assert kind.arch.name == name
        assert not any(misfit(kind, shapes_of(name))), name


def test_the_number_of_tensors_is_as_published() -> None:
    """Tencent/TFace, issue 10: the state dict of IR-101 with a batch norm behind each convolution has 917."""
    assert len(slots(KINDS["adaface-ir101"].arch, KINDS["adaface-ir101"].names)) == 917


def test_what_the_rows_were_fed() -> None:
    """AdaFace: BGR, / 127.5; arcface_torch: RGB, / 127.5; mxnet: RGB, / 128; y1 was trained on swapped channels."""
    fed = {name: (kind.color, kind.std) for name, kind in KINDS.items()}
    assert {key.split("-")[0]: value for key, value in fed.items()} == {
        "adaface": ("bgr", 127.5),
        "arcface": ("rgb", 127.5),
        "mxnet": ("rgb", 128.0),
        "mobilefacenet": ("bgr", 127.5),
    }
    assert KINDS["arcface-iresnet100"].arch.to_dict() == ZOO["iresnet100"].to_dict() | {"name": "arcface-iresnet100"}


# -- what a file is instead


@pytest.mark.parametrize(
    ("found", "asked", "wanted"),
    [
        (
            "adaface-ir50", "adaface-ir18",
            "; it fits --as adaface-ir50",
        ),
        ("arcface-iresnet34", "adaface-ir34", "; it fits --as arcface-iresnet34 or mxnet-iresnet34"),
        ("arcface-iresnet18", "arcface-iresnet50", "; it fits --as arcface-iresnet18"),
        ("mobilefacenet-y1", "mxnet-iresnet50", "; it fits --as mobilefacenet-y1"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind(tmp_path: Path, found: str, asked: str, wanted: str) -> None:
    assert hint(tmp_path, shapes_of(found), asked).endswith(wanted)


def test_a_file_that_lacks_something_and_has_too_much(tmp_path: Path) -> None:
    state = shapes_of("adaface-ir18")
    for name in ("input_layer.2.weight", "output_layer.4.running_var"):
        del state[name]
    state["output_layer.4.weight"] = torch.empty(512)
    state["body.1.res_layer.1.weight"] = torch.empty(64, 64, 1, 1)
    assert hint(tmp_path, state, "adaface-ir18") == (
        "2 missing (first 'input_layer.2.weight'), 1 unexpected (first 'output_layer.4.weight'), "
        "1 of another shape (first 'body.1.res_layer.1.weight'); no kind is nearer (97.8% fit)"
    )
    assert hint(tmp_path, state, "arcface-iresnet18").endswith("; nearest: --as adaface-ir18 (97.8% fit)")


def test_a_file_of_no_known_kind(tmp_path: Path) -> None:
    state = {"backbone.0.weight": torch.empty(3), "x" * 999: torch.empty(1)}
    text = hint(tmp_path, state, "adaface-ir18")
    assert "missing (first 'input_layer.0.weight'), 2 unexpected (first 'backbone.0.weight'); " in text
    assert text.endswith("; it has the names of no known kind")


def test_arcface_mbf_is_refused_by_name_and_by_its_tensors(tmp_path: Path) -> None:
    why = "arcface-mbf: its second layer has groups of two channels, which no architecture here has"
    with pytest.raises(InputError, match=f"^{why}; it cannot be imported$"):
        find_kind("arcface-mbf")
    state = {
        "layers.0.layers.0.weight": torch.empty(128, 3, 3, 3),
        "conv_sep.layers.0.weight": torch.empty(512, 256, 1, 1),
    }
    assert hint(tmp_path, state, "mobilefacenet-y1").endswith(f"; {why}; it cannot be imported")


@pytest.mark.parametrize(
    ("name", "color", "wanted"),
    [
        (
            "adaface-ir100",
            None,
            r"^no kind is called 'adaface-ir100' \(did you mean 'adaface-ir101'\?\); known: adaface-ir18,",
        ),
        ("", None, "^no kind is called ''; known: "),
        ("adaface-ir18", "grey", "^color is 'grey', wanted rgb or bgr$"),
    ],
)
def test_names_that_are_no_kinds(name: str, color: str | None, wanted: str) -> None:
    with pytest.raises(InputError, match=wanted):
        find_kind(name, color)


def test_colours_may_be_given() -> None:
    assert find_kind("adaface-ir18", "rgb").color == "rgb"
    assert (find_kind("adaface-ir18").color, find_kind("adaface-ir18", "bgr").color) == ("bgr", "bgr")
