"""log.jsonl and TensorBoard: every step and every evaluation, cut back to the checkpoint on resume."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


class RunLog:
    """Appends rows to run/log.jsonl and scalars to TensorBoard event files in the same folder."""

    def __init__(self, run: Path, keep_bytes: int, seen: int) -> None:
        """Keep the first `keep_bytes` of the log, those that the checkpoint knows of; `seen` images. TensorBoard
        drops what it has from the first image after them on."""
        from torch.utils.tensorboard import SummaryWriter  # slow to import: only training pays for it

        path = run / "log.jsonl"
        self._file = path.open("ab")
        self._file.truncate(keep_bytes)
        self._board = SummaryWriter(str(run), purge_step=seen + 1)

    def write(self, row: dict[str, Any]) -> None:
        """One JSON line; numbers of a step or a validation go to TensorBoard as well, against images seen."""
        self._file.write((json.dumps(row) + "\n").encode())
        self._file.flush()  # so that the file can be followed while it grows
        for name, value in row.items():
            if name == "terms":
                for term, part in value.items():
                    self._board.add_scalar(f"terms/{term}", part, row["images"])
            elif isinstance(value, float):
                self._board.add_scalar(f"{row['event']}/{name}", value, row["images"])

    def sync(self) -> int:
        """Flush to the disk; returns the length of log.jsonl in bytes."""
        self._file.flush()
        os.fsync(self._file.fileno())
        return self._file.tell()

    def close(self) -> None:
        """Flush and close both."""
        self._file.close()
        self._board.close()
