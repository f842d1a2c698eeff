"""Data sets of photographs from which an object was removed."""

import re
from collections.abc import Iterator
from functools import partial

from headpatch.pairs.converters.making import Makes
from headpatch.pairs.converters.source import (
    TWO_QUESTIONS,
    Box,
    Cells,
    Source,
    Unusable,
    opposite,
    parquet_rows,
    records_of,
    region_of,
    said_of,
    yes_or_no,
)

_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def popev2(source: Source) -> Iterator[Makes]:
    """POPEv2: two rows a picture, the original (Yes) and the edited one (No).

    ``annotations.json`` is a list of image_id, image_name, target_object, query and label; where
    the object is, COCO's instances of train2017 say.
    """
    needed = ("image_id", "image_name", "target_object", "query", "label")
    path = source.file("annotations.json", "dataset/annotations.json")
    source, rows = source.beside(path), records_of(path, *needed)
    boxes = source.boxes("instances_train2017.json", "annotations/instances_train2017.json")
    couples: dict[str, list[Cells]] = {}
    for row in rows:
        couples.setdefault(f"{row['image_id']} {row['target_object']}", []).append(row)
    for name, couple in couples.items():
        yield name, partial(_popev2_pair, source, boxes, couple)


def _popev2_pair(source: Source, boxes: dict[tuple[int, str], Box], couple: list[Cells]) -> Cells:
    by_label = {yes_or_no(said_of(row, "label")): row for row in couple}
    if len(couple) != 2 or len(by_label) != 2:
        raise Unusable("no two rows, Yes and No", f"{len(couple)}, {', '.join(by_label)}")
    present, absent = by_label["Yes"], by_label["No"]
    target = said_of(present, "target_object")
    if said_of(present, "query") != said_of(absent, "query"):
        raise Unusable(TWO_QUESTIONS)
    box = boxes.get((int(present["image_id"]), target))
    if box is None:
        raise Unusable("COCO's instances have no such object there", target)
    original = source.picture(said_of(present, "image_name"))
    return {
        "with": original,
        "without": source.picture(said_of(absent, "image_name")),
        "question": said_of(present, "query"),
        "region": region_of(box, original),
        "answers": "Yes,No",
        "scene": str(present["image_id"]),
        "target_object": target,
    }


def merlim(source: Source) -> Iterator[Makes]:
    """MERLIM's mirror in Parquet: a row an edited picture, which it stores; the original by name.

    The reasoning splits ask `question` and `question_neg`; the others are asked for the object that
    was removed, if none of its kind is left.
    """
    needed = (
        "image", "split", "orig_img", "in_img", "cat_label", "num_rem_obj", "bbox", "question",
        "question_neg", "orig_answer", "inp_answer", "orig_neg_answer", "inp_neg_answer",
    )  # fmt: skip
    paths = source.files("test-*.parquet", "data/test-*.parquet", "*.parquet")
    if not paths:
        source.file("test-00000-of-00001.parquet")  # which says what is missing
    for number, row in enumerate(parquet_rows(paths, *needed), start=1):
        if not str(row["question"] or "").strip():
            yield f"{number}", partial(_merlim_object, source, row)
            continue
        for kind in ("", "_neg"):
            yield f"{number}{kind.replace('_', '-')}", partial(_merlim_asked, source, row, kind)


def _merlim_object(source: Source, row: Cells) -> Cells:
    if said_of(row, "num_rem_obj").removesuffix(".0") != "0":
        raise Unusable("more objects of the kind are left, so the right answer stays Yes")
    kind = said_of(row, "cat_label")
    return _merlim_pair(source, row, f"Is there any {kind} in the image?", "Yes,No")


def _merlim_asked(source: Source, row: Cells, kind: str) -> Cells:
    first, second = (f"{run}{kind}_answer" for run in ("orig", "inp"))
    answers = [yes_or_no(said_of(row, name), name) for name in (first, second)]
    return _merlim_pair(source, row, said_of(row, f"question{kind}"), opposite(*answers))


def _merlim_pair(source: Source, row: Cells, question: str, answers: str) -> Cells:
    original, edited = said_of(row, "orig_img"), said_of(row, "in_img")
    picture = source.picture(original)
    cells: Cells = {"with": picture, "question": question, "answers": answers, "scene": original}
    try:  # the authors' own folder has both as files
        cells["without"] = source.picture(edited)
    except Unusable:
        cells["without"] = source.stored(row["image"])
    numbers = [float(one) for one in _NUMBER.findall(str(row["bbox"] or ""))]
    if len(numbers) != 4:
        raise Unusable("its bbox is no x, y, width, height", repr(str(row["bbox"])[:40]))
    left, top, width, height = numbers
    cells["region"] = region_of((left, top, left + width, top + height), picture)
    factors = {name: str(row[name] or "") for name in ("split", "cat_label", "predicate")
               if name in row}  # fmt: skip
    return cells | factors
