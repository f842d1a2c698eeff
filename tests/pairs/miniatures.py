"""Published data sets in miniature: their exact layouts, a few rows, pictures drawn here.

Each holds rows that make pairs and rows that make none, for every reason there is.
"""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from headpatch.pairs.scene import Style, draw, sample_pair

SIZE = (64, 48)  # of a photograph: width, height


def drawn(seed: int, size: tuple[int, int] = SIZE) -> tuple[bytes, bytes]:
    """A picture with an object at the top left, and without it, as JPEG."""
    found = []
    for scene in sample_pair(np.random.default_rng(seed), "top left", background="light"):
        stream = BytesIO()
        draw(scene, Style(*size, antialias=True)).save(stream, "jpeg", quality=95)
        found.append(stream.getvalue())
    return found[0], found[1]


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    put(path, "".join(f"{json.dumps(row)}\n" for row in rows).encode())


def parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist([dict(row) for row in rows]), path)


def stored(content: bytes | None, name: str = "") -> dict[str, Any]:
    """A picture as Hugging Face stores it in Parquet."""
    return {"bytes": content, "path": name or None}


def instances(path: Path, boxes: Sequence[tuple[int, str, Sequence[float]]]) -> None:
    """COCO's file of boxes: picture, kind, (x, y, width, height) in pixels."""
    kinds = list(dict.fromkeys(kind for _, kind, _ in boxes))
    content = {
        "info": {}, "licenses": [],
        "images": [{"id": image, "width": 64, "height": 48} for image, *_ in boxes],
        "annotations": [{"id": number, "image_id": image, "category_id": kinds.index(kind) + 1,
                         "bbox": list(box), "iscrowd": 0, "area": 1.0, "segmentation": []}
                        for number, (image, kind, box) in enumerate(boxes)],
        "categories": [{"id": number, "name": kind, "supercategory": ""}
                       for number, kind in enumerate(kinds, start=1)],
    }  # fmt: skip
    put(path, json.dumps(content).encode())


def popev2(folder: Path) -> None:
    rows = []
    cases = {46207: "remote", 489255: "hot dog", 88567: "umbrella", 9: "cup", 10: "fork", 11: "cat"}
    for number, (image, target) in enumerate(cases.items()):
        present, absent = drawn(number)
        for label, place, content in (("No", "images", absent), ("Yes", "coco/train2017", present)):
            name = f"{place}/{image:012d}.jpg"
            if (image, label) != (9, "No"):  # the edited picture of one is missing
                put(folder / name, content)
            rows.append({"image_id": image, "image_name": f"/{name}", "target_object": target,
                         "query": f"Is there a {target} in the image?",
                         "label": label})  # fmt: skip
    del rows[-1]  # the original of the last
    put(folder / "annotations.json", json.dumps(rows, indent=4).encode())
    boxes = [(46207, "remote", (4, 4, 12, 10)), (489255, "hot dog", (0, 0, 32.5, 24)),
             (489255, "hot dog", (30, 10, 20, 20)), (88567, "umbrella", (64, 10, 9, 9)),
             (9, "cup", (1, 1, 9, 9)), (11, "cat", (1, 1, 9, 9))]  # fmt: skip
    instances(folder / "instances_train2017.json", boxes)


def merlim(folder: Path) -> None:
    def row(number: int, **more: Any) -> dict[str, Any]:
        edited = drawn(number)[1]
        put(folder / f"coco_aug/{number}.jpg", drawn(number)[0])
        return {
            "image_id": f"{number}_1", "image": stored(edited), "split": "reasoning_curated",
            "orig_img": f"{number}.jpg", "in_img": f"{number}_1.jpg", "cat_idx": "43",
            "cat_label": "tennis racket", "num_rem_obj": "0", "bbox": "[4.0, 4.0, 20.0, 16.0]",
            "predicate": "holding", "subject_name": "child", "object_name": "racket",
            "question": "Is the child holding the racket?", "inp_answer": "no",
            "question_neg": "Is the child eating the racket?", "inp_neg_answer": "no",
            "orig_answer": "yes", "orig_neg_answer": "no", **more,
        }  # fmt: skip

    counted = {"split": "classification_counting", "question": "", "question_neg": ""}
    rows = [
        row(139),
        row(285, question_neg="Is no child holding the racket?", inp_neg_answer="yes"),
        row(632, **counted),
        row(724, **counted, num_rem_obj="2"),
        row(776, **counted, bbox="near the top"),
        row(785, **counted, image=stored(None)),
    ]
    parquet(folder / "test-00000-of-00002.parquet", rows[:4])
    parquet(folder / "test-00001-of-00002.parquet", rows[4:])


def naturalbench(folder: Path) -> None:
    rows = []
    right = ("Yes No No Yes", "No Yes Yes Yes", "A B B A", "No Yes Maybe No")
    for number, answers in enumerate(one.split() for one in right):
        kind = "multiple_choice" if answers[0] == "A" else "yes_no"
        first, second = drawn(number)[0], drawn(number + 50, (48, 64))[0]
        rows.append({
            "Index": number, "Image_0": stored(first), "Image_1": stored(second),
            "Question_0": "Is the dog in front of the person?", "Question_1": "Is it raining?",
            "Image_0_Question_0": answers[0], "Image_1_Question_0": answers[1],
            "Image_0_Question_1": answers[2], "Image_1_Question_1": answers[3],
            "Question_Type": kind, "Source": "Flickr30K",
        })  # fmt: skip
    parquet(folder / "data/train-00000-of-00002.parquet", rows[:2])
    parquet(folder / "data/train-00001-of-00002.parquet", rows[2:])


MMVP = [
    ("Are the butterfly's wings closer to being open or closed?", "(a) Open (b) Closed", "(a)"),
    ("Are the butterfly's wings closer to being open or closed?", "(a) Open (b) Closed", "(b)"),
    ("Is the tip of the glue stick open or closed?", "(a) Open (b) Closed", "(b)"),
    # the same options in another order
    ("Is the tip of the glue stick open or closed?", "(a) Closed (b) Open", "(b)"),
    ("Is the elephant's tusk long or short?", "(a) Long (b) Short", "(b)"),
    ("Is the elephant's tusk long or short?", "(a) Long (b) Short", "(b)"),
    ("Is the door open?", "(a) Yes (b) No", "(a)"),
    ("Is the window open?", "(a) Yes (b) No", "(b)"),
    ("Is it a cat or a dog?", "(a) Cat (b) Dog", "(a)"),
    ("Is it a cat or a dog?", "(a) Cat (b) Cow", "(b)"),
    ("Is it left or right?", "(a) Left (b) Right", "(a)"),
]


def mmvp(folder: Path) -> None:
    for number in range(1, len(MMVP) + 1):
        put(folder / f"MMVP Images/{number}.jpg", drawn(number)[0])
    with (folder / "Questions.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["Index", "Question", "Options", "Correct Answer"])
        writer.writerows([number, *row] for number, row in enumerate(MMVP, start=1))


def whatsup(folder: Path) -> None:
    """As the authors have them: paths begin with ``data/``, which is the folder itself."""
    relations = {"on": "on", "under": "under", "left_of": "to the left of",
                 "right_of": "to the right of"}  # fmt: skip
    rows = []
    for number, (name, words) in enumerate(relations.items()):
        put(folder / f"controlled_images/mug_{name}_plate.jpeg", drawn(number)[0])
        options = [words, *(other for other in relations.values() if other != words)]
        rows.append({"image_path": f"data/controlled_images/mug_{name}_plate.jpeg",
                     "caption_options": [f"A mug {one} a plate" for one in options]})  # fmt: skip
    put(folder / "controlled_images_dataset.json", json.dumps(rows).encode())
    names = ("cup_in-front_of_bowl", "cup_behind_bowl", "cup_left_of_bowl", "cup_near_bowl")
    rows = []
    for number, name in enumerate(names):
        put(folder / f"controlled_clevr/{name}.jpeg", drawn(number + 9)[0])
        said = f"A {name.replace('_', ' ').replace('-', ' ')}".replace("cup ", "cup ")
        rows.append({"image_path": f"data/controlled_clevr/{name}.jpeg",
                     "caption_options": [said, "A cup to the right of a bowl"]})  # fmt: skip
    put(folder / "controlled_clevr_dataset.json", json.dumps(rows).encode())


POPE = (
    ("dining table", "yes"), ("cat", "yes"), ("bottle", "yes"),
    ("tv", "no"), ("hot dog", "no"), ("zebra", "no"),
)  # fmt: skip


def pope(folder: Path) -> None:
    for category in ("random", "popular", "adversarial"):
        rows = []
        for image in (548882, 8211):
            name = f"COCO_val2014_{image:012d}.jpg"
            put(folder / f"val2014/{name}", drawn(image)[0])
            rows += [{"question_id": len(rows) + number, "image": name, "image_id": image,
                      "text": f"Is there a {what} in the image?", "label": label}
                     for number, (what, label) in enumerate(POPE)]  # fmt: skip
        if category == "adversarial":
            rows[-1] = {**rows[-1], "image": "COCO_val2014_000000000001.jpg"}
            rows[0] = {**rows[0], "label": "maybe"}
        lines(folder / f"coco_pope_{category}.json", rows)
    instances(folder / "instances_val2014.json", [(8211, "cat", (8, 6, 16, 12))])


def pope_stored(folder: Path) -> None:
    """The mirror in Parquet, which stores the picture with each question."""
    rows = [
        {"id": str(number), "question_id": str(number),
         "question": f"Is there a {what} in the image?",
         "answer": label, "image_source": "COCO_val2014_000000548882",
         "image": stored(drawn(5)[0]), "category": "popular"}
        for number, (what, label) in enumerate(POPE)
    ]  # fmt: skip
    parquet(folder / "data/test-00000-of-00001.parquet", rows)


def vsr(folder: Path) -> None:
    def row(image: int, caption: str, label: int, relation: str) -> dict[str, Any]:
        name = f"{image:012d}.jpg"
        put(folder / f"images/{name}", drawn(image)[0])
        return {"image": name, "image_link": f"http://images.cocodataset.org/train2017/{name}",
                "caption": caption, "label": label, "relation": relation, "annotator_id": 31,
                "vote_true_validator_id": [2, 6], "vote_false_validator_id": []}  # fmt: skip

    rows = [
        row(50403, "The teddy bear is in front of the person.", 1, "in front of"),
        row(50403, "The person is on the bench.", 0, "on"),
        row(50403, "The person is in front of the teddy bear.", 0, "in front of"),
        row(401552, "The umbrella is far away from the motorcycle.", 0, "far away from"),
    ]
    for split, some in {"train": rows[:3], "test": rows[3:]}.items():
        lines(folder / f"splits/random/{split}.jsonl", some)


def coco_counterfactuals(folder: Path) -> None:
    captions = [
        ("A man holding an umbrella.", "A man holding a kite."),
        ("Two dogs on a couch.", "Two cats on a couch."),
        ("A red bus in town.", "A blue train in town."),
    ]
    rows = []
    for number, said in enumerate(captions):
        names = [f"{number}_0_img_{run}" for run in (0, 1)]
        for name, content in zip(names, drawn(number, (64, 64)), strict=True):
            put(folder / f"data/images/{name}.jpg", content)
        rows.append({"id": f"{number}_0", "image_0": names[0], "image_1": names[1],
                     "caption_0": said[0], "caption_1": said[1]})  # fmt: skip
    lines(folder / "data/examples.jsonl", rows)


MINIATURES: Mapping[str, Callable[[Path], None]] = {
    "popev2": popev2, "merlim": merlim, "naturalbench": naturalbench, "mmvp": mmvp,
    "whatsup": whatsup, "pope": pope, "vsr": vsr, "coco-counterfactuals": coco_counterfactuals,
}  # fmt: skip
