"""YAML of plain data only: tables, lists and scalars."""

from __future__ import annotations

from typing import Any


def read_yaml(text: str) -> Any:
    """What `text` holds. Raises ValueError, on one line, for anything else than plain YAML.

    Anchors, aliases and tags are refused: with them a few hundred bytes unfold to gigabytes (lists of aliases,
    merge keys), and PyYAML's own tags fail with errors of any kind.
    """
    import yaml

    class PlainLoader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            if event.anchor or getattr(event, "tag", None):  # an alias has an anchor as well
                raise yaml.YAMLError(f"line {event.start_mark.line + 1}: anchors, aliases and tags are not read here")
            return super().compose_node(parent, index)

    try:
        return yaml.load(text, PlainLoader)
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from None
