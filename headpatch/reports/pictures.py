"""The pictures of the page: the pair on the first screen, and attention laid over both.

Attention becomes density as in the figure ``attention_overlays.png``
(`headpatch.present.overlays`). The page's script draws that of the head that is chosen: the
densities of every head in both runs are written as bytes, 255 being the largest of the head's.
"""

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from headpatch.core.output.folder import Part, Results, reading_of
from headpatch.core.study.record import RUN
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.pairs.pair import Pair
from headpatch.present.interactive_map import OPAQUE, RAMP, picture
from headpatch.present.overlays import densities
from headpatch.present.section import numbers
from headpatch.present.tables import says

if TYPE_CHECKING:
    import pandas

MOST = 2_400_000  # characters of all overlays; beyond, heads are kept by their importance
Densities = tuple[
    Float[np.ndarray, "heads y x"], Float[np.ndarray, "x_edges"], Float[np.ndarray, "y_edges"]
]
_GATE = dict.fromkeys(["pair", "question", "reason"], "text") | {
    "ld_with": "number", "ld_without": "number", "passed": "truth"
}  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One picture, and what the model made of it, as far as that is known."""

    name: str  # ``with`` or ``without``
    picture: str  # a data URI
    width: int
    height: int
    box: tuple[float, ...]  # the region, in fractions of the picture
    answer: str  # in full, or its first word
    ld: float | None
    likely: str  # how likely the two answers are, and which token wins


@dataclass(frozen=True)
class Example:
    """A pair as it is shown."""

    question: str
    region: str
    words: str = ""  # what pair it is, where a dataset was run
    sides: tuple[Side, ...] = ()
    answers: tuple[str, str] | None = None  # its own right ones, with and without the object


def example_of(results: Results) -> Example:
    """Return the pair that `rank` kept, the study's own, or the first of a dataset that passed.

    Pictures that are no longer where they were are left out.
    """
    main, kept = results.main, _kept(results)
    asked = str(main.study.get("question", "")), str(main.study.get("region", ""))
    if "question" in main.run:  # single pictures, each asked its own
        return Example(str(main.run["question"]), "")
    if not main.many:
        return Example(*asked, sides=kept or _of_study(main))
    gate = results.table("gate.csv", _GATE)
    if kept:
        part = results.first("attention_with_triangle.pt")
        assert part is not None
        asked = str(part.study.get("question", "")), str(part.study.get("region", ""))
        return Example(*asked, f"{_many(gate)}; shown is the study's own pair", kept)
    found = _of_dataset(main, gate) if gate is not None else None
    if found is not None:
        return found
    questions = [] if gate is None else list(dict.fromkeys(gate["question"]))
    return Example(questions[0] if questions else asked[0], "", _many(gate))


def _many(gate: "pandas.DataFrame | None") -> str:
    if gate is None:
        return "Asked of many pairs of pictures"
    questions = gate["question"].nunique()
    several = "" if questions == 1 else f", {questions:,} questions"
    return f"Asked of {len(gate):,} pairs of pictures{several}"


def _kept(results: Results) -> tuple[Side, ...]:
    """What `rank` kept of the two runs."""
    if results.pictures is None:
        return ()
    part = results.first("attention_with_triangle.pt")
    assert part is not None
    sides = []
    for name, run in zip(("with", "without"), results.pictures, strict=True):
        with reading_of(part, f"attention_{name}_triangle.pt"):
            box = tuple(float(edge) for edge in run["region_box"])
            answer = " ".join(str(run["answer"]).split())
            likely = _likely(part, name)
            sides.append(_side(name, run["image"], box, answer, float(run["ld"]), likely))
    return tuple(sides)


def _of_study(part: Part) -> tuple[Side, ...]:
    """The study's pictures, where they still are."""
    try:
        study = Study.model_validate(dict(part.study))
        pair = study.pair()
    except (InputError, ValueError):  # pydantic's error is a ValueError
        return ()
    lds = [part.run.get(f"ld_{name}") for name in ("with", "without")]
    likely = [_likely(part, name) for name in ("with", "without")]
    return _sides(pair, lds, study.answers, likely)


def _likely(part: Part, run: str) -> str:
    """Say how likely the two answers are in a run of one pair; empty if it does not say."""
    readings = part.run.get("answer_probabilities")
    told = readings.get(run) if isinstance(readings, dict) else None
    words = part.study.get("answers")
    if not isinstance(told, dict) or not isinstance(words, list):
        return ""
    with reading_of(part, RUN):
        return says(words, told)


def _of_dataset(part: Part, gate: "pandas.DataFrame") -> Example | None:
    """The first pair of a dataset that passed the gate, where its pictures can be had."""
    passed = gate[gate["passed"]]
    if passed.empty:
        return None
    row = passed.iloc[0]
    try:
        study = Study.model_validate(dict(part.study))
        pair = _listed(study, row["pair"]) if study.pairs.manifest else _drawn(study, row["pair"])
    except (InputError, ValueError):
        return None
    if pair is None or pair.question != row["question"]:
        return None
    answers = pair.answers or study.answers
    sides = _sides(pair, [row["ld_with"], row["ld_without"]], answers)
    return Example(
        " / ".join(dict.fromkeys(pair.questions)),
        pair.region.name,
        f"{_many(gate)}; shown is one of them",
        sides,
        pair.answers,
    )


def _listed(study: Study, name: str) -> Pair | None:
    from headpatch.pairs.manifest import Manifest

    assert study.pairs.manifest is not None
    entries = Manifest.read(Path(study.pairs.manifest)).entries
    found = next((entry for entry in entries if entry.name == name), None)
    return None if found is None else found.pair()


def _drawn(study: Study, name: str) -> Pair | None:
    """Draw a pair again: the same seed gives the same pair."""
    from headpatch.pairs.generate import plan
    from headpatch.pairs.region import Region
    from headpatch.pairs.scene import Style, draw

    options = study.draw
    planned = plan(options.n, study.seed, options.regions, options.wording)
    found = next((one for one in planned if one.name == name), None)
    if found is None:
        return None
    style = Style(options.size, options.size, antialias=True)
    pictures = draw(found.with_scene, style), draw(found.without_scene, style)
    return Pair(name, *pictures, found.question, Region.parse(found.region))


def _sides(
    pair: Pair, lds: list[Any], answers: tuple[str, str], likely: Sequence[str] = ("", "")
) -> tuple[Side, ...]:
    sides = []
    for name, image, ld, said in zip(("with", "without"), pair.images, lds, likely, strict=True):
        known = float(ld) if isinstance(ld, float | int) else None
        answer = "" if known is None else answers[0 if known > 0 else 1]
        sides.append(_side(name, np.asarray(image), pair.region.box, answer, known, said))
    return tuple(sides)


def _side(
    name: str, image: Any, box: tuple[float, ...], answer: str, ld: float | None, likely: str
) -> Side:
    height, width = np.shape(image)[:2]
    return Side(name, picture(image), width, height, box, answer, ld, likely)


def packed(data: bytes) -> str:
    """Compress for the page; the same data gives the same text."""
    return base64.b64encode(gzip.compress(data, 9, mtime=0)).decode("ascii")


def overlays(
    runs: Sequence[Mapping[str, Any]], importance: Sequence[int]
) -> tuple[dict[str, Any], str]:
    """Pack the attention of as many heads as fit: what `rank` kept of the with- and without-run.

    `importance` are flat indices of all heads, those to keep first. Returns what the script needs
    to draw them, and the packed bytes: ``[kept heads, runs, y, x]``.
    """
    maps = [_densities(run) for run in runs]
    if any(not _together(one, maps[0]) for one in maps[1:]):
        raise ValueError("the two runs' image tokens do not lie in the same places")
    cells = np.stack([one[0] for one in maps], axis=1)  # heads, runs, y, x
    peaks = np.nan_to_num(cells).max(axis=(1, 2, 3))
    levels = np.nan_to_num(cells) / np.where(peaks > 0, peaks, 1.0)[:, None, None, None]
    bytes_ = np.round(255 * levels).astype(np.uint8)
    kept = list(importance)
    while len(text := packed(bytes_[kept].tobytes())) > MOST:
        kept = kept[: int(len(kept) * 0.95 * MOST / len(text))]
    found, x_edges, y_edges = maps[0]
    covered = np.isfinite(found[0])
    return {
        "heads": kept,
        "ramp": RAMP,
        "opaque": OPAQUE,
        "peaks": numbers(peaks[kept]),
        "x": numbers(x_edges),
        "y": numbers(y_edges),
        "covered": None if covered.all() else covered.astype(int).ravel().tolist(),
    }, text


def _together(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Whether the boxes of two runs lie in the same places."""
    edges = zip(one[1:], other[1:], strict=True)
    return all(np.array_equal(a, b) for a, b in edges) and np.array_equal(
        np.isfinite(one[0][0]), np.isfinite(other[0][0])
    )


def _densities(run: Mapping[str, Any]) -> Densities:
    rows = np.asarray(run["lm_rows"], dtype=np.float64)[..., np.asarray(run["image_positions"])]
    boxes = np.asarray(run["boxes"], dtype=np.float64)
    return densities(rows.reshape(-1, rows.shape[-1]), boxes)
