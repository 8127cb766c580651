"""Frames of many videos through an embedder, in batches that go on from one video to the next."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mobileface.data.images import BadImage, Image, decode
from mobileface.embedders.contract import Embedder, embed_with_flip
from mobileface.errors import InputError
from mobileface.video.tracks import Video, Videos

BATCH = 64  # frames; no more pixels are held

Progress = Callable[[int, int], None]  # videos done, videos in all


@dataclass(eq=False)
class Embedded:
    """raw: (F, D) float32, a row for each frame of the video. faults: why a frame has none (its row is zero)."""

    video: Video
    raw: NDArray[np.float32]
    faults: dict[int, str] = field(default_factory=dict)

    def usable(self) -> NDArray[np.int64]:
        """Numbers of the frames that have an embedding."""
        return np.array([i for i in range(len(self.raw)) if i not in self.faults], np.int64)


class Stream:
    """The videos of a source, embedded one after another; `sha256` is that of all that was read.

    flip "sum": the mean of a frame's embedding and that of its mirror image; "none": the frame's.
    A frame that does not decode, or that the model has no finite embedding of a length above 0 for, is a fault of
    that frame. InputError where the model has none for a whole batch.
    """

    def __init__(self, videos: Videos, embedder: Embedder, flip: str) -> None:
        self.videos, self.embedder, self.flip = videos, embedder, flip
        self._digest = hashlib.sha256()
        self._batch: list[tuple[Embedded, int, Image]] = []

    def __iter__(self) -> Iterator[Embedded]:
        waiting: deque[Embedded] = deque()
        for video in self.videos:
            self._digest.update("\0".join((video.name, *(video.marks or ()), "")).encode("utf-8", "surrogateescape"))
            found = Embedded(video, np.zeros((len(video.frames), self.embedder.dim), np.float32))
            waiting.append(found)
            for number, frame in enumerate(video.frames):
                image = self._read(found, number, frame)
                if image is not None:
                    self._batch.append((found, number, image))
                if len(self._batch) == BATCH:
                    self._flush()
            unfinished = {id(found) for found, *_ in self._batch}
            while waiting and id(waiting[0]) not in unfinished:
                yield waiting.popleft()
        self._flush()
        yield from waiting

    def sha256(self) -> str:
        """Hex SHA-256 over the videos so far: their names, marks, and their frames' names and contents, in order."""
        return self._digest.hexdigest()

    def _read(self, found: Embedded, number: int, frame: str) -> Image | None:
        self._digest.update(frame.encode("utf-8", "surrogateescape") + b"\0")
        try:
            data = self.videos.read(frame)
            self._digest.update(hashlib.sha256(data).digest())
            return decode(data, frame)
        except BadImage as error:
            found.faults[number] = str(error).removeprefix(f"{frame}: ")
            return None

    def _flush(self) -> None:
        if not self._batch:
            return
        images = np.stack([image for *_, image in self._batch])
        try:
            rows: list[NDArray[np.float32] | None] = list(self._embed(images))
        except InputError:
            rows = [self._embed_one(images[i : i + 1]) for i in range(len(images))]
            if len(rows) > 1 and all(row is None for row in rows):
                raise
        for (found, number, _), row in zip(self._batch, rows, strict=True):
            length = np.linalg.norm(row) if row is not None else np.nan
            if row is not None and np.isfinite(length) and length > 0:
                found.raw[number] = row
            else:
                found.faults[number] = f"its embedding has length {length:g}, wanted above 0 and finite"
        self._batch.clear()

    def _embed_one(self, image: NDArray[np.uint8]) -> NDArray[np.float32] | None:
        try:
            return self._embed(image)[0]
        except InputError:  # not finite
            return None

    def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if self.flip == "none":
            return self.embedder(images)
        return embed_with_flip(self.embedder, images) * np.float32(0.5)
