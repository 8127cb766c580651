"""A small set to judge on."""

from __future__ import annotations

from pathlib import Path


def pairs_folder(top: Path, faces: Path, people: tuple[str, str]) -> Path:
    """Two people, six images each, named and paired as LFW does; returns the list."""
    for person, source in zip(people, ("person-0", "person-1"), strict=True):
        (top / person).mkdir(parents=True)
        for i in range(6):
            (top / person / f"{person}_{i + 1:04d}.jpg").write_bytes((faces / source / f"face-{i}.jpg").read_bytes())
    one, two = people
    same = [f"{one}\t1\t2\n{two}\t3\t4\n", f"{one}\t3\t5\n{two}\t1\t6\n"]
    other = [f"{one}\t1\t{two}\t2\n{one}\t4\t{two}\t3\n", f"{one}\t6\t{two}\t5\n{one}\t2\t{two}\t1\n"]
    (top / "pairs.txt").write_text("2\t2\n" + same[0] + other[0] + same[1] + other[1], encoding="utf-8")
    return top / "pairs.txt"
