"""align.tsv: what became of each photograph, a row for each face that was cut out or for the reason why none was."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from mobileface.data.detect import Face
from mobileface.data.folder import Entry
from mobileface.errors import InputError
from mobileface.files import atomic_path

VERDICTS = ("aligned", "no-face", "below-score", "too-small", "bad-landmarks", "unreadable")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")  # as seen in the image
COLUMNS = (
    "path", "bytes", "mtime_ns", "verdict", "crop", "faces", "photo_width", "photo_height",
    "score", "left", "top", "width", "height", *(f"{point}_{axis}" for point in POINTS for axis in "xy"), "reason",
)  # fmt: skip
MAX_PHOTOS = 10_000_000  # of a table: 4 GB of memory
MAX_LINE = 1 << 16  # characters

Row = list[str]  # a text for each of COLUMNS
Table = dict[str, str]  # rows of each photograph as the file has them, by its path: a fifth of the memory of `Row`s


def make_row(
    photo: Entry,
    verdict: str,
    crop: str = "",
    reason: str = "",
    faces: int = 0,
    shape: tuple[int, ...] = (),
    face: Face | None = None,
) -> Row:
    """A row: the file, faces of the score asked for, (H, W, ...) of the photograph; all px are those of the file."""
    height, width = (str(side) for side in shape[:2]) if shape else ("", "")
    numbers = [""] * 15
    if face is not None:
        numbers = [f"{face.score:.4f}", *(f"{value:.2f}" for value in (*face.box, *face.landmarks.ravel()))]
    file = [photo.path, str(photo.size), str(photo.mtime_ns)]
    return [*file, verdict, crop, str(faces), width, height, *numbers, reason]


def photo_of(row: Row) -> Entry:
    """The photograph's file when it was judged."""
    return Entry(row[0], int(row[1]), int(row[2]))


def verdict_of(row: Row) -> str:
    """One of VERDICTS."""
    return row[COLUMNS.index("verdict")]


def text_of(rows: Iterable[Row]) -> str:
    """Rows as a file has them: tab-separated; a name with a tab or a line break stands in quotes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, csv.excel_tab)  # its own \r\n: else Python before 3.13 leaves \r in a name unquoted
    writer.writerows(rows)
    return text.getvalue()


def rows_of(text: str) -> list[Row]:
    """What `text_of` was given."""
    return list(csv.reader(io.StringIO(text, newline=""), csv.excel_tab))


def begin_table(path: Path) -> TextIO:
    """A new file with the names of the columns, open for `text_of` rows."""
    file = path.open("w", encoding="utf-8", errors="surrogateescape", newline="")
    file.write(text_of([list(COLUMNS)]))
    return file


def write_table(path: Path, table: Table) -> None:
    """All rows, photographs sorted by path: whole, or not at all."""
    with atomic_path(path) as temporary, begin_table(temporary) as file:
        file.writelines(table[photo] for photo in sorted(table))


def read_table(path: Path) -> Table:
    """What `write_table` has written. Raises InputError with the line's number for anything else."""
    table: Table = {}
    _fill(table, path)
    return table


def read_part(path: Path) -> Table:
    """What a run that was killed had written behind `begin_table`, up to its last photograph, which may be torn."""
    table: Table = {}
    with suppress(InputError, FileNotFoundError):
        _fill(table, path)
    if table:
        table.popitem()
    return table


def _fill(table: Table, path: Path) -> None:
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.reader(iter(lambda: file.readline(MAX_LINE), ""), csv.excel_tab)
        try:
            _check(next(reader, []) == list(COLUMNS))
            last = ""
            for row in reader:
                _check(len(row) == len(COLUMNS) and verdict_of(row) in VERDICTS and min(photo_of(row)[1:]) >= 0)
                _check(row[0] not in table or row[0] == last)
                last = row[0]
                table[last] = table.get(last, "") + text_of([row])
                if len(table) > MAX_PHOTOS:
                    raise InputError(f"{path}: has rows of more than {MAX_PHOTOS:,} photographs")
        except (csv.Error, ValueError) as error:
            wanted = "wanted a table that `data align` wrote"
            raise InputError(f"{path}: line {reader.line_num}: {str(error) or 'is no row of it'}; {wanted}") from None


def _check(sound: bool) -> None:
    if not sound:
        raise ValueError
