"""Data sets of questions about single pictures, several of one picture."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from headpatch.pairs.converters.making import Makes
from headpatch.pairs.converters.source import (
    Box,
    Cells,
    Source,
    Unusable,
    parquet_rows,
    records_of,
    region_of,
    said_of,
    yes_or_no,
)

_CATEGORIES: Final = ("random", "popular", "adversarial")
_OBJECT = re.compile(r"Is there an? (.+) in the image\?")
_IMAGE_ID = re.compile(r"([0-9]{12})\.jpg$")
_TRUTH: Final = {"0": "No", "1": "Yes"}


def pope(source: Source) -> Iterator[Makes]:
    """POPE: ``coco_pope_random.json`` (popular, adversarial) as JSON lines, or Parquet with bytes.

    With COCO's instances of val2014 the object that is there gets its box.
    """
    if paths := source.files("data/test-*.parquet", "test-*.parquet", "*.parquet"):
        needed = ("question_id", "question", "answer", "image", "image_source", "category")
        for row in parquet_rows(paths, *needed):
            name = f"{row['category']}-{row['question_id']}"
            yield name, partial(_pope_stored, source, row)
        return
    files = {one: source.files(f"*_pope_{one}.json", f"*/*_pope_{one}.json") for one in _CATEGORIES}
    if not any(files.values()):
        source.file("coco_pope_random.json")
    boxes = source.boxes("instances_val2014.json") if source.instances else {}
    for category, path in ((one, path) for one, paths in files.items() for path in paths):
        for row in records_of(path, "question_id", "image", "text", "label"):
            name = f"{_dataset(path)}-{category}-{row['question_id']}"
            yield name, partial(_pope_row, source, row, category, boxes)


def _dataset(path: Path) -> str:
    return path.name.partition("_pope_")[0]


def _pope_stored(source: Source, row: Cells) -> Cells:
    return {
        "image": source.stored(row["image"]),
        "question": said_of(row, "question"),
        "answer": yes_or_no(said_of(row, "answer"), "answer"),
        "answers": "Yes,No",
        "scene": said_of(row, "image_source"),
        "category": said_of(row, "category"),
    }


def _pope_row(
    source: Source, row: Cells, category: str, boxes: dict[tuple[int, str], Box]
) -> Cells:
    name, question = said_of(row, "image"), said_of(row, "text")
    cells: Cells = {
        "image": source.picture(name),
        "question": question,
        "answer": yes_or_no(said_of(row, "label")),
        "answers": "Yes,No",
        "scene": name,
        "category": category,
    }
    asked, number = _OBJECT.fullmatch(question), _IMAGE_ID.search(name)
    box = boxes.get((int(number[1]), asked[1])) if asked and number else None
    return cells if box is None else cells | {"region": region_of(box, cells["image"])}


def vsr(source: Source) -> Iterator[Makes]:
    """VSR: JSON lines of image, caption, label (1: true) and relation, one file a split.

    ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``, there or in ``data/splits/random/``.
    """
    paths = source.files("*.jsonl", "splits/random/*.jsonl", "data/splits/random/*.jsonl")
    if not paths:
        source.file("test.jsonl")
    for path in paths:
        rows = records_of(path, "image", "caption", "label", "relation")
        for number, row in enumerate(rows, start=1):
            yield f"{path.stem}-{number}", partial(_vsr_row, source, row, path.stem)


def _vsr_row(source: Source, row: Cells, split: str) -> Cells:
    label = said_of(row, "label")
    if label not in _TRUTH:
        raise Unusable("its label is neither 0 nor 1", label)
    name = said_of(row, "image")
    try:
        picture = source.picture(f"images/{name}")
    except Unusable:
        picture = source.picture(f"trainval2017/{name}")
    return {
        "image": picture,
        "question": f"Is this statement about the image true? {said_of(row, 'caption')}",
        "answer": _TRUTH[label],
        "answers": "Yes,No",
        "scene": name,
        "split": split,
        "relation": said_of(row, "relation"),
    }
