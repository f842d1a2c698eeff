"""Data sets of two pictures each, to which one question has two right answers."""

import re
from collections.abc import Iterator, Mapping
from difflib import SequenceMatcher
from functools import partial
from typing import Any, Final

from headpatch.pairs.converters.making import Makes, in_order
from headpatch.pairs.converters.source import (
    TWO_QUESTIONS,
    Cells,
    Source,
    Unusable,
    opposite,
    parquet_rows,
    records_of,
    said_of,
    yes_or_no,
)

_SUFFIX: Final = {
    "yes_no": "Please answer Yes or No.",
    "multiple_choice": "Please output the letter corresponding to the correct option.",
}
"""As NaturalBench's own evaluation asks, by Question_Type."""
_OPTION = re.compile(r"\(([a-z])\)\s*([^()]+)")
_OPPOSITE: Final = {
    "left_of": "right_of", "right_of": "left_of", "on": "under", "under": "on",
    "in-front_of": "behind", "behind": "in-front_of",
}  # fmt: skip
"""Relations of What'sUp, as its files are named."""
_ARTICLES = {"a", "an", "the"}


def naturalbench(source: Source) -> Iterator[Makes]:
    """NaturalBench in Parquet: two pictures and two questions a row; each question is a pair.

    The picture to which the right answer is Yes (or A) is the one *with*.
    """
    answers = tuple(f"Image_{i}_Question_{j}" for j in (0, 1) for i in (0, 1))
    needed = ("Index", "Image_0", "Image_1", "Question_0", "Question_1", "Question_Type", "Source")
    paths = source.files("data/train-*.parquet", "train-*.parquet", "*.parquet")
    if not paths:
        source.file("data/train-00000-of-00001.parquet")
    for row in parquet_rows(paths, *needed, *answers):
        for asked in (0, 1):
            yield f"{row['Index']}-q{asked}", partial(_naturalbench_pair, source, row, asked)


def _naturalbench_pair(source: Source, row: Cells, asked: int) -> Cells:
    kind = said_of(row, "Question_Type")
    if kind not in _SUFFIX:
        raise Unusable("its Question_Type is not known", kind)
    right = [said_of(row, f"Image_{image}_Question_{asked}") for image in (0, 1)]
    if kind == "yes_no":
        right = [yes_or_no(answer, "answer") for answer in right]
    first = min((0, 1), key=lambda image: in_order(right[image]))
    return {
        "with": source.stored(row[f"Image_{first}"]),
        "without": source.stored(row[f"Image_{1 - first}"]),
        "question": f"{said_of(row, f'Question_{asked}')} {_SUFFIX[kind]}",
        "answers": opposite(right[first], right[1 - first]),
        "scene": str(row["Index"]),
        "group": str(row["Index"]),
        "question_type": kind,
        "source": said_of(row, "Source"),
    }


def mmvp(source: Source) -> Iterator[Makes]:
    """MMVP: rows 2k − 1 and 2k are one question of two pictures, with options (a) and (b).

    ``Questions.csv`` beside ``MMVP Images/``, or Parquet that stores the pictures.
    """
    needed = ("Index", "Question", "Options", "Correct Answer")
    rows: list[Cells]
    if paths := source.files("data/test-*.parquet", "test-*.parquet", "*.parquet"):
        rows = list(parquet_rows(paths, *needed, "image"))
    else:
        rows = records_of(source.file("Questions.csv"), *needed)
    numbered = {int(row["Index"]): row for row in rows if str(row["Index"]).strip().isdigit()}
    for number in sorted(one for one in numbered if one % 2):
        couple = [numbered.get(number), numbered.get(number + 1)]
        yield f"{(number + 1) // 2:03d}", partial(_mmvp_pair, source, couple)


def _mmvp_pair(source: Source, couple: list[Cells | None]) -> Cells:
    first, second = couple
    if first is None or second is None:
        raise Unusable("its second picture is not in the table")
    if said_of(first, "Question") != said_of(second, "Question"):
        raise Unusable(TWO_QUESTIONS)
    letters = [_letter(row, first) for row in (first, second)]
    answers = opposite(*letters)
    pictures = [
        source.stored(row["image"]) if "image" in row else _mmvp_picture(source, row)
        for row in (first, second)
    ]
    question = f"{said_of(first, 'Question')} {said_of(first, 'Options')}"
    return {
        "with": pictures[0],
        "without": pictures[1],
        "question": f"{question} Answer with the letter alone.",
        "answers": answers,
    }


def _mmvp_picture(source: Source, row: Cells) -> Any:
    name = f"{said_of(row, 'Index')}.jpg"
    try:
        return source.picture(f"MMVP Images/{name}")
    except Unusable:
        return source.picture(f"MMVP Imgaes/{name}")  # as an earlier release spells it


def _letter(row: Mapping[str, Any], asked: Mapping[str, Any]) -> str:
    """Return the letter of a row's right answer among the options as they are asked."""
    own, said = (_options(one) for one in (row, asked))
    letter = said_of(row, "Correct Answer").strip("()").lower()
    text = own.get(letter)
    for other, option in said.items():
        if text is not None and option == text:
            return other
    raise Unusable("its right answer is none of the options that are asked", letter)


def _options(row: Mapping[str, Any]) -> dict[str, str]:
    found = _OPTION.findall(said_of(row, "Options"))
    return {letter: " ".join(text.split()).lower() for letter, text in found}


def whatsup(source: Source) -> Iterator[Makes]:
    """What'sUp's controlled pictures: of two objects, one picture a relation; opposites are paired.

    ``controlled_images_dataset.json`` (A) and ``controlled_clevr_dataset.json`` (B) list
    image_path and caption_options, of which the first is right. Each relation is asked for once, so
    that of two opposite pictures each is once the one *with*.
    """
    names = {"A": "controlled_images_dataset.json", "B": "controlled_clevr_dataset.json"}
    there = {part: name for part, name in names.items() if (source.folder / name).is_file()}
    if not there:
        source.file(*names.values())
    for part, name in there.items():
        rows = records_of(source.folder / name, "image_path", "caption_options")
        placed = {key: row for row in rows if (key := _placed(str(row["image_path"])))}
        for (left, relation, right), row in placed.items():
            other = placed.get((left, _OPPOSITE[relation], right))
            what = f"{part} {left} {relation} {right}"
            yield what, partial(_whatsup_pair, source, row, other, part, relation)
        for row in rows:
            if not _placed(str(row["image_path"])):
                yield f"{part} {row['image_path']}", partial(_unplaced, str(row["image_path"]))


def _placed(path: str) -> tuple[str, str, str] | None:
    stem = path.replace("\\", "/").rpartition("/")[2].rpartition(".")[0]
    for relation in _OPPOSITE:
        left, between, right = stem.partition(f"_{relation}_")
        if between and left and right:
            return left, relation, right
    return None


def _unplaced(path: str) -> Cells:
    raise Unusable("a file's name holds no relation", path)


def _whatsup_pair(
    source: Source, row: Cells, other: Cells | None, part: str, relation: str
) -> Cells:
    if other is None:
        raise Unusable("no picture of the opposite relation", _OPPOSITE[relation])
    placed = _placed(str(row["image_path"]))
    assert placed is not None
    if not isinstance(row["caption_options"], list) or not row["caption_options"]:
        raise Unusable("a cell is empty", "caption_options")
    caption = str(row["caption_options"][0]).strip().rstrip(".")
    return {
        "with": source.picture(str(row["image_path"])),
        "without": source.picture(str(other["image_path"])),
        "question": f"Is there {caption[:1].lower()}{caption[1:]}?",
        "answers": "Yes,No",
        "scene": f"{part} {placed[0]} {placed[2]}",
        "part": part,
        "relation": relation.removesuffix("_of"),
    }


def coco_counterfactuals(source: Source) -> Iterator[Makes]:
    """COCO-Counterfactuals: two drawn pictures whose captions differ in a noun, asked for each.

    ``examples.jsonl`` (id, image_0, image_1, caption_0, caption_1) beside the unpacked
    ``images/``.
    """
    needed = ("id", "image_0", "image_1", "caption_0", "caption_1")
    path = source.file("examples.jsonl", "data/examples.jsonl")
    source = source.beside(path)
    for row in records_of(path, *needed):
        for asked in (0, 1):
            yield f"{row['id']}-{asked}", partial(_counterfactual, source, row, asked)


def _counterfactual(source: Source, row: Cells, asked: int) -> Cells:
    nouns = _swapped_word(said_of(row, "caption_0"), said_of(row, "caption_1"))
    present, absent = (
        source.picture(f"images/{said_of(row, f'image_{run}')}.jpg") for run in (asked, 1 - asked)
    )
    return {
        "with": present,
        "without": absent,
        "question": f"Do you see any {nouns[asked]} in the image?",
        "answers": "Yes,No",
        "scene": str(row["id"]),
    }


def _swapped_word(first: str, second: str) -> tuple[str, str]:
    """Return the word in which two captions differ, of each."""
    words = (re.findall(r"[\w'-]+", text.lower()) for text in (first, second))
    one, other = ([str(word) for word in said if word not in _ARTICLES] for said in words)
    codes = SequenceMatcher(None, one, other, autojunk=False).get_opcodes()
    changes = [ends for kind, *ends in codes if kind != "equal"]
    if len(changes) != 1 or [changes[0][1] - changes[0][0], changes[0][3] - changes[0][2]] != [
        1,
        1,
    ]:
        raise Unusable("its captions differ in more than one word, or in none")
    return one[changes[0][0]], other[changes[0][2]]
