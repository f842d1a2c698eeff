"""What is changed, and what each row then says."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from headpatch.core.effects import change, has, refuse_reweighting, resolve
from headpatch.core.labelled_rows import Rows, choice_tokens, read_choices, token_text
from headpatch.core.output.files import read_table
from headpatch.core.ranking import random_sets
from headpatch.core.saved_verdict import SavedVerdict
from headpatch.core.session import Session
from headpatch.core.study.options import alphas_of
from headpatch.core.study.study import Study
from headpatch.engine.answers import decode
from headpatch.engine.generation import generate_changed
from headpatch.engine.interventions import Intervention
from headpatch.engine.patching import OnProgress, ZMeans
from headpatch.errors import InputError
from headpatch.heads import Head, HeadSet, Selection
from headpatch.kinds import KINDS, REWEIGHTED
from headpatch.models.vlm import VLM
from headpatch.pairs.labelled import Labelled
from headpatch.text import user_path


class Named(NamedTuple):
    """A set of heads that is asked about, and its short name."""

    name: str
    heads: HeadSet


class Asked(NamedTuple):
    """A named set, changed in one way, and random sets of its layers changed alike."""

    named: Named
    change: Intervention
    controls: tuple[Intervention, ...]


@dataclass(frozen=True)
class Plan:
    """Every change, and those that change nothing (`selves`), by which rounding is measured."""

    asked: tuple[Asked, ...]
    selves: tuple[Intervention, ...]

    @property
    def changes(self) -> tuple[Intervention, ...]:
        """Every change of heads, each once."""
        every = (one for asked in self.asked for one in (asked.change, *asked.controls))
        return tuple(dict.fromkeys(every))


@dataclass(frozen=True)
class Said:
    """What a row says: with nothing changed, then under each change of a plan.

    `choices` are numbers of the row's own, -1 where it has none; `margins` (logits) are by how much
    the likeliest token lies before the next, empty of texts; `off` is by how much changes that
    change nothing move LD. A row with a `reason` could not be asked.
    """

    texts: tuple[str, ...] = ()
    choices: tuple[int, ...] = ()
    margins: tuple[float, ...] = ()
    off: float = 0.0
    reason: str = ""


def plan(study: Study, vlm: VLM, sets: Sequence[Named]) -> Plan:
    """Work out what is changed on every row."""
    options, grids = study.evaluate, [vlm.lm.grid]
    refuse_reweighting(vlm, options.kinds)
    if any(has("vision", one.heads) for one in sets):
        grids.append(vlm.stack("vision").grid)
    where, neutral = options.positions, (None,)
    asked = []
    for one in sets:
        drawn = random_sets(one.heads, options.controls, study.seed, *grids)
        for kind in options.kinds:
            for alpha in alphas_of(options.alpha) if KINDS[kind].alpha else neutral:
                changed, *controls = (
                    Intervention(heads, kind, "noising", where, alpha=alpha, toward=options.toward)
                    for heads in (one.heads, *drawn)
                )
                asked.append(Asked(one, changed, tuple(controls)))
    selves = () if options.generate else tuple(
        Intervention(one.heads, "self", "noising", options.positions) for one in sets
    )  # fmt: skip
    return Plan(tuple(asked), selves)


def named_sets(rows: Rows) -> tuple[Named, ...]:
    """Return the sets of heads that the study names; all of them, then each alone if asked for."""
    options = rows.study.evaluate
    if options.verdict is not None:
        sets = _judged(user_path(options.verdict, "--verdict"), rows)
    else:
        heads = HeadSet(resolve(Selection.parse(options.heads), rows.vlm, lambda: _order(rows)))
        sets = [Named(_short(heads), heads)]
    alone = [HeadSet.of(head) for one in sets for head in one.heads] if options.each else []
    known = {one.heads for one in sets}
    sets += [Named(str(one), one) for one in dict.fromkeys(alone) if one not in known]
    return tuple(sets)


def turned(study: Study) -> bool:
    """Whether attention is turned to each row's region."""
    options = study.evaluate
    return options.toward == "region" and bool({*options.kinds} & {*REWEIGHTED})


def names_vision(study: Study) -> bool:
    """Whether heads of the vision tower are named."""
    options = study.evaluate
    return options.verdict is None and Selection.parse(options.heads).names_vision


def _short(heads: HeadSet) -> str:
    return str(heads) if len(heads) <= 3 else f"{len(heads)} heads"


def _judged(folder: Path, rows: Rows) -> list[Named]:
    """Return the heads of each class of a verdict; ``necessary`` is in necessary+sufficient."""
    saved, grid = SavedVerdict.read(folder, "--verdict"), rows.vlm.lm.grid
    if saved.weights != rows.vlm.fingerprint:
        found = f"{folder} judged heads of other weights than {rows.vlm.name}'s"
        raise InputError("--verdict", found, "a verdict on this model")
    sets = list[Named]()
    for name in rows.study.evaluate.classes:
        is_one = [name in str(label).split("+") for label in saved.heads["verdict"]]
        heads = _heads_in(saved.heads[is_one])
        if heads:
            members = HeadSet(tuple(grid.check(head, "--verdict") for head in heads))
            sets.append(Named(f"{name}: {_short(members)}", members))
    if not sets:
        classes = " or ".join(rows.study.evaluate.classes)
        known = ", ".join(sorted({str(one) for one in saved.heads["verdict"]}))
        raise InputError("--classes", f"no head of {folder} is {classes}", f"one of {known}")
    return sets


def _heads_in(table: pd.DataFrame) -> list[Head]:
    places = zip(table["layer"].tolist(), table["head"].tolist(), strict=True)
    return [Head(layer, head) for layer, head in places]


def _order(rows: Rows) -> Sequence[Head]:
    """Return the heads by attention: as a rank has left them, or by the pairs themselves."""
    options = rows.study.evaluate
    if options.ranking is not None:
        path = user_path(options.ranking, "--ranking") / "heads.csv"
        if not path.is_file():
            found, hint = f"there is no {path}", "headpatch rank --out DIR writes one."
            raise InputError("--ranking", found, "the folder of a rank", hint)
        table: pd.DataFrame = read_table(path, dict.fromkeys(("rank", "layer", "head"), "whole"))
        ordered = table.sort_values("rank", kind="stable")
        return [rows.vlm.lm.grid.check(head, "--ranking") for head in _heads_in(ordered)]
    if rows.ranking is None:
        hint = "Or name the heads: --heads 24.17,23.20."
        found = f"{options.heads}, and single pictures, which rank no heads"
        raise InputError("--heads", found, "--ranking DIR, of headpatch rank, as well", hint)
    return rows.ranking()


def measure(
    session: Session, row: Labelled, asked: Plan, means: ZMeans | None, advance: OnProgress
) -> Said:
    """Let a row be answered with nothing changed, and under each change."""
    options, changes = session.study.evaluate, asked.changes
    if options.generate:
        ids = generate_changed(
            session.vlm, session.base, changes, options.generate, options.through == "text", means,
            advance,
        )  # fmt: skip
        texts = tuple(decode(session.vlm, one) for one in ids)
        return Said(texts, (-1,) * len(texts))
    read = read_choices(choice_tokens(session, row))
    both = [*changes, *asked.selves]
    outcomes = change(session, both, means, advance, read=read)
    before = read(session.base.trace.logits[:1]).double()[0].tolist()
    first = int(session.base.trace.logits[0].argmax())
    figures = [before] + [
        [was + more for was, more in zip(before, one.read, strict=True)]
        for one in outcomes[: len(changes)]
    ]
    tokens = [first, *(one.token for one in outcomes[: len(changes)])]
    likeliest: Callable[[list[float]], int] = lambda own: own.index(max(own)) if own else -1  # noqa: E731
    return Said(
        tuple(token_text(session, token) for token in tokens),
        tuple(likeliest(own[1:]) for own in figures),
        tuple(own[0] for own in figures),
        max((abs(one.effect) for one in outcomes[len(changes) :]), default=0.0),
    )
