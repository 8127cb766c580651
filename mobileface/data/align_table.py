"""align.tsv: what became of each photograph, a row for each face that was cut out or for the reason why none was."""

from __future__ import annotations

import csv
from pathlib import Path

from mobileface.data.detect import Face
from mobileface.errors import InputError
from mobileface.files import atomic_path

VERDICTS = ("aligned", "no-face", "below-score", "too-small", "bad-landmarks", "unreadable")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")  # as seen in the image
COLUMNS = (
    "path", "bytes", "verdict", "crop", "faces", "photo_width", "photo_height",
    "score", "left", "top", "width", "height", *(f"{point}_{axis}" for point in POINTS for axis in "xy"), "reason",
)  # fmt: skip
MAX_TABLE_BYTES = 1 << 30

Row = list[str]  # a text for each of COLUMNS
Table = dict[str, list[Row]]  # rows of each photograph, by its path


def make_row(
    path: str,
    size: int,
    verdict: str,
    crop: str = "",
    reason: str = "",
    faces: int = 0,
    shape: tuple[int, ...] = (),
    face: Face | None = None,
) -> Row:
    """A row: bytes of the file, faces of the score asked for, (H, W, ...) of the photograph; all px are its own."""
    height, width = (str(side) for side in shape[:2]) if shape else ("", "")
    numbers = [""] * 15
    if face is not None:
        numbers = [f"{face.score:.4f}", *(f"{value:.2f}" for value in (*face.box, *face.landmarks.ravel()))]
    return [path, str(size), verdict, crop, str(faces), width, height, *numbers, reason]


def size_of(row: Row) -> int:
    """Bytes of the photograph when it was judged."""
    return int(row[COLUMNS.index("bytes")])


def verdict_of(row: Row) -> str:
    """One of VERDICTS."""
    return row[COLUMNS.index("verdict")]


def write_table(path: Path, table: Table) -> None:
    """Tab-separated, photographs sorted by path; a name with a tab or a line break stands in quotes."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,
    ):
        writer = csv.writer(file, csv.excel_tab)  # its own \r\n: else Python before 3.13 leaves \r in a name unquoted
        writer.writerow(COLUMNS)
        for photo in sorted(table):
            writer.writerows(table[photo])


def read_table(path: Path) -> Table:
    """What `write_table` has written. Raises InputError with the line's number for anything else."""
    if path.stat().st_size > MAX_TABLE_BYTES:
        raise InputError(f"{path}: is larger than {MAX_TABLE_BYTES} bytes; not a table of aligned faces")
    table: Table = {}
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, csv.excel_tab)
        try:
            _check(next(reader, []) == list(COLUMNS))
            for row in reader:
                _check(len(row) == len(COLUMNS) and verdict_of(row) in VERDICTS and size_of(row) >= 0)
                table.setdefault(row[0], []).append(row)
        except (csv.Error, ValueError) as error:
            wanted = "wanted a table that `data align` wrote"
            raise InputError(f"{path}: line {reader.line_num}: {str(error) or 'is no row of it'}; {wanted}") from None
    return table


def _check(sound: bool) -> None:
    if not sound:
        raise ValueError
