"""Spaces of networks as data: for each field of an SE-MobileFaceNet's table the values it may take. No torch.

A space is a name (SPACES) or a file, YAML or JSON, of these keys; each holds the list of its choices:

    name: narrow                     # the file's name unless told
    stem: [16, 24]                   # channels
    stem_depthwise: [false, true]    # [false]
    activation: [prelu, leaky_relu]  # [prelu]
    stages:                          # the first may be without a reduction: it works at 56x56 px
      - {width: [16, 24], hidden: [32, 48], depth: [0, 1, 2]}
      - width: [32, 48]              # of both rows; each stage with a reduction halves the map: 28, 14, 7 px
        reduction: {hidden: [64], kernel: [3], se: [false]}  # one block of stride 2
        hidden: [64, 96]             # of the `depth` equal blocks behind it
        depth: [0, 1, 2, 3, 4]
        kernel: [3, 5]               # [3]
        se: [true, false]            # [true]
    head: [128, 256]                 # channels
    embedding_dim: [64, 128]

A gene is the place of a choice in its list. Where a stage has no blocks (depth 0), the genes of those blocks mean
nothing and are 0: then distinct genes are distinct networks, and all others are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from operator import lt
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mobileface.arch import Arch, SEMobileFaceNet, Stage
from mobileface.errors import InputError, nearest
from mobileface.plain_yaml import read_yaml_file
from mobileface.training.plan_errors import explain
from search.space_tables import SPACES, SpaceTable

MAX_SPACE_BYTES = 1 << 16  # lfrc has 2,000
Choice = int | bool | str
Genes = tuple[int, ...]


@dataclass(frozen=True)
class Gene:
    """A field of the table and the values it may take; `stages.1.reduction.hidden`."""

    name: str
    choices: tuple[Choice, ...]


@dataclass(frozen=True)
class Space:
    """All networks whose fields are among the choices of their genes."""

    name: str
    genes: tuple[Gene, ...]

    @cached_property
    def places(self) -> dict[str, int]:
        """Name of a gene -> its place in `genes`."""
        return {gene.name: place for place, gene in enumerate(self.genes)}

    @cached_property
    def stages(self) -> tuple[str, ...]:
        """What the names of each stage's genes begin with: `stages.0.`, ..."""
        return tuple(gene.name.removesuffix("depth") for gene in self.genes if gene.name.endswith(".depth"))

    @cached_property
    def _counts(self) -> tuple[int, ...]:
        return tuple(len(gene.choices) for gene in self.genes)

    @cached_property
    def _idle(self) -> tuple[tuple[int, int, tuple[int, ...]], ...]:
        """(place of a depth that may be 0, that choice, places of the genes that mean nothing then)."""
        found = []
        for at in self.stages:
            depth, own = self.places[f"{at}depth"], ["hidden", "kernel", "se"]
            if 0 in (choices := self.genes[depth].choices):
                own += [] if f"{at}reduction.hidden" in self.places else ["width"]
                found.append((depth, choices.index(0), tuple(self.places[at + name] for name in own)))
        return tuple(found)

    def idle(self, genes: Genes) -> list[int]:
        """Places of the genes that mean nothing, those of blocks that are not there."""
        return [place for depth, none, places in self._idle if genes[depth] == none for place in places]

    def canonical(self, genes: Genes) -> Genes:
        """The same network's genes with 0 for those that mean nothing."""
        idle = self.idle(genes)
        if any(genes[place] for place in idle):
            return tuple(0 if place in idle else gene for place, gene in enumerate(genes))
        return genes

    def arch(self, genes: Genes) -> SEMobileFaceNet:
        """The network of canonical genes; InputError for any others. Its name holds the beginning of its `key`."""
        value = self._values(genes)
        rows = []
        for at in self.stages:
            width = value[f"{at}width"]
            if f"{at}reduction.hidden" in value:
                hidden, kernel, se = (value[f"{at}reduction.{name}"] for name in ("hidden", "kernel", "se"))
                rows.append(_row(hidden, width, 1, 2, kernel, se))
            if depth := value[f"{at}depth"]:
                rows.append(_row(value[f"{at}hidden"], width, depth, 1, value[f"{at}kernel"], value[f"{at}se"]))
        others = {name: value[name] for name in ("stem", "head", "embedding_dim", "stem_depthwise", "activation")}
        made = SEMobileFaceNet("unnamed", stages=tuple(rows), **others)
        return replace(made, name=f"{self.name}-{key(made)[:8]}")

    def genes_of(self, arch: Arch) -> Genes:
        """The genes of a network, in whatever way its blocks are spread over rows.

        InputError for a network outside the space, naming the gene.
        """
        if not isinstance(arch, SEMobileFaceNet):
            raise InputError(f"{arch.name} is a network of {arch.family}, wanted one of {SEMobileFaceNet.family}")
        others = [gene.name for gene in self.genes if not gene.name.startswith("stages.")]
        found: dict[str, Any] = {name: getattr(arch, name) for name in others}
        stretches = _stretches(arch)
        with_reduction = [f"{at}reduction.hidden" in self.places for at in self.stages]
        if with_reduction[0] and stretches[0]:
            raise InputError(f"{arch.name} has blocks before the first of stride 2, {self.name} has none there")
        stretches = stretches[1:] if with_reduction[0] else stretches
        if len(stretches) != len(self.stages):
            halves = [len(stretches) - (not with_reduction[0]), sum(with_reduction)]
            raise InputError(f"{arch.name} has {halves[0]} blocks of stride 2, networks of {self.name} {halves[1]}")
        for at, reduces, blocks in zip(self.stages, with_reduction, stretches, strict=True):
            if len({block.width for block in blocks}) > 1 or len(set(blocks[reduces:])) > 1:
                raise InputError(f"{arch.name}: the blocks of {at[:-1]} differ, those of {self.name} are equal")
            found[f"{at}depth"] = len(blocks) - reduces
            found |= {f"{at}width": block.width for block in blocks[:1]}
            for prefix, block in ((f"{at}reduction.", blocks[:reduces]), (at, blocks[reduces:][:1])):
                for one in block:
                    found |= {f"{prefix}hidden": one.hidden, f"{prefix}kernel": one.kernel, f"{prefix}se": one.se}
        return tuple(self._choice(arch, gene, found[gene.name]) if gene.name in found else 0 for gene in self.genes)

    def to_dict(self) -> dict[str, Any]:
        """The tables of a file; `parse_space` reads them back."""
        tables: dict[str, Any] = {"name": self.name, "stages": [{} for _ in self.stages]}
        for gene in self.genes:
            table, names = tables, gene.name.split(".")
            if names[0] == "stages":
                table, names = tables["stages"][int(names[1])], names[2:]
            for name in names[:-1]:
                table = table.setdefault(name, {})
            table[names[-1]] = list(gene.choices)
        return tables

    def _choice(self, arch: Arch, gene: Gene, value: Any) -> int:
        if value not in gene.choices:
            wanted = ", ".join(map(str, gene.choices))
            raise InputError(f"{arch.name} is not in {self.name}: {gene.name} is {value}, wanted one of {wanted}")
        return gene.choices.index(value)

    def _values(self, genes: Genes) -> dict[str, Any]:
        if len(genes) != len(self.genes):
            raise InputError(f"{len(genes)} genes given, {self.name} has {len(self.genes)}")
        if not all(map(lt, genes, self._counts)) or min(genes) < 0:
            wrong = next(place for place, gene in enumerate(genes) if not 0 <= gene < self._counts[place])
            name, most = self.genes[wrong].name, self._counts[wrong] - 1
            raise InputError(f"{name}: choice {genes[wrong]} given, wanted 0 to {most}")
        for place in self.idle(genes):
            if genes[place]:
                name = self.genes[place].name
                raise InputError(f"{name}: choice {genes[place]} given for blocks that are not there, wanted 0")
        return {gene.name: gene.choices[choice] for gene, choice in zip(self.genes, genes, strict=True)}


def key(arch: Arch) -> str:
    """64 hex digits: SHA-256 of the canonical JSON of the network without its name.

    Equal hidden widths of a row's blocks count as one number.
    """
    plain = {"family": arch.family, **{name: value for name, value in vars(arch).items() if name != "name"}}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), default=_plain_row)
    return hashlib.sha256(text.encode()).hexdigest()


def find_space(name: str) -> Space:
    """A space by name or from a file (YAML or JSON)."""
    if name in SPACES:
        return parse_space({"name": name, **SPACES[name]}, name)
    path = Path(name)
    if not (path.exists() or path.suffix in (".yaml", ".yml", ".json")):
        raise InputError(f"no space is called {name!r}{nearest(name, SPACES)}; known: {', '.join(SPACES)}, or a file")
    if not path.is_file():
        found = "is no file" if path.exists() else "no such file"
        raise InputError(f"{path}: {found}; wanted a space in YAML or JSON")
    try:
        data = read_yaml_file(path, "space", MAX_SPACE_BYTES)
    except ValueError as error:  # bytes that are not UTF-8 as well
        raise InputError(f"{path}: cannot be read as a space ({error})") from None
    return parse_space({"name": path.stem, **data} if isinstance(data, dict) else data, str(path))


def parse_space(data: Any, source: str) -> Space:
    """Validate plain data. Every error is one line: where, what was found, what is wanted."""
    if not isinstance(data, dict):
        raise InputError(f"{source}: holds {type(data).__name__}, wanted a table of keys such as stem, stages, head")
    try:
        table = SpaceTable.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{source}: {explain(error, SpaceTable)}") from None
    return Space(table.name, tuple(_genes(table.model_dump(exclude={"name"}, exclude_none=True))))


def _genes(table: dict[str, Any], prefix: str = "") -> Iterator[Gene]:
    """The lists of choices in nested tables, by their dotted keys."""
    for name, value in table.items():
        if isinstance(value, list) and isinstance(value[0], dict):
            value = {str(place): inner for place, inner in enumerate(value)}
        if isinstance(value, dict):
            yield from _genes(value, f"{prefix}{name}.")
        else:
            yield Gene(prefix + name, tuple(value))


def _stretches(arch: SEMobileFaceNet) -> list[list[Stage]]:
    """The blocks, each a row of its own: before the first of stride 2, and from each of stride 2 to the next."""
    found: list[list[Stage]] = [[]]
    for stage in arch.stages:
        for place, hidden in enumerate(stage.hiddens()):
            stride = stage.stride if place == 0 else 1
            if stride == 2:
                found.append([])
            found[-1].append(replace(stage, hidden=hidden, depth=1, stride=stride))
    return found


def _plain_row(stage: Stage) -> dict[str, Any]:
    if isinstance(stage.hidden, tuple) and len(set(stage.hidden)) == 1:
        return {**vars(stage), "hidden": stage.hidden[0]}
    return vars(stage)


@lru_cache(maxsize=1 << 16)
def _row(hidden: int, width: int, depth: int, stride: int, kernel: int, se: bool) -> Stage:
    """A row, validated once."""
    return Stage(hidden, width, depth, stride, kernel, se)
