"""What the families have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import Field, asdict
from typing import Any, ClassVar, Self

from mobileface.arch.checks import known
from mobileface.arch.layers import Block


class Arch(ABC):
    """An architecture: each family is a frozen dataclass with a name, the width of its embedding, and a walk."""

    family: ClassVar[str]
    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    name: str
    embedding_dim: int

    @abstractmethod
    def walk(self) -> Iterator[Block]:
        """The blocks in order, equal neighbours in one `Block` with their multiplicity."""

    def values(self) -> int:
        """Floating-point values that a checkpoint of the network holds, counted without building it."""
        return sum(block.repeat * sum(sum(layer.values()) for layer in block.layers) for block in self.walk())

    def plain(self) -> Arch | None:
        """The network that this one extends, to which its cost is compared; None where there is none."""
        return None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, `family` first; `arch_from_dict` reads it back."""
        return {"family": self.family, **asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any], source: str) -> Self:
        """Read plain data without its `family`. InputError that names the key, or the nearest known one."""
        return cls(**known(cls, data, source))
