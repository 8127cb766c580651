"""YAML of plain data only: tables, lists and scalars."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mobileface.errors import InputError


def read_yaml_file(path: Path, kind: str, limit: int) -> Any:
    """What a file of at most `limit` bytes holds; InputError for a larger one, which is no `kind`.

    Raises ValueError, on one line, for anything else than plain YAML in UTF-8.
    """
    if path.stat().st_size > limit:
        raise InputError(f"{path}: is larger than {limit} bytes; not a {kind}")
    return read_yaml(path.read_text(encoding="utf-8"))


def read_yaml(text: str) -> Any:
    """What `text` holds. Raises ValueError, on one line, for anything else than plain YAML.

    Anchors, aliases and tags are refused: with them a few hundred bytes unfold to gigabytes (lists of aliases,
    merge keys), and PyYAML's own tags fail with errors of any kind. So is a key that a table has twice: YAML forbids
    it, and PyYAML would keep the last in silence.
    """
    import yaml

    class PlainLoader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if event.anchor or getattr(event, "tag", None):  # an alias has an anchor as well
                raise yaml.YAMLError(f"line {event.start_mark.line + 1}: anchors, aliases and tags are not read here")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            there = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if (key.tag, key.value) in there:
                    line = key.start_mark.line + 1
                    raise yaml.YAMLError(f"line {line}: the key {key.value!r} stands in its table twice")
                there.add((key.tag, key.value))
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, PlainLoader)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
