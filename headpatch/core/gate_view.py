"""How pairs did at the gate, for a terminal and for a page."""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final

from headpatch.present.column import Column, Schema
from headpatch.present.parts import Part, Place, Words, grid
from headpatch.stats.effects import DOUBTFUL_BELOW, NEITHER_BELOW
from headpatch.stats.scenes import shared_words

SEEN_ALIKE: Final = (
    "both runs are identical: the processor gives the model the same of both pictures"
)
"""Why a pair fails whose object the processor cuts away, say."""
_LISTED: Final = {"terminal": 10, "page": 30}  # failed pairs; gate.csv has all
_SHARE = "probability"


def _answer(run: str) -> tuple[Column, ...]:
    return (
        Column(
            f"p_yes_{run}",
            f"of the first answer's token, {run} the object; with `--sum-variants` of all its "
            "spellings",
            _SHARE,
            optional=True,
        ),
        Column(f"p_no_{run}", "of the second answer's, likewise", _SHARE, optional=True),
        Column(
            f"top_{run}", f"the most likely token, {run} the object", "–", "text", optional=True
        ),
        Column(f"p_top_{run}", "its probability", _SHARE, optional=True),
        Column(
            f"said_{run}",
            "which answer that token is, in any case and with any space around it: `yes` (the "
            "first), `no` (the second) or `neither`",
            "–",
            "text",
            optional=True,
        ),
    )


GATE: Final = Schema(
    "gate.csv",
    "a pair of the dataset, run or not",
    (
        Column("pair", "its name in the dataset", "–", "text", key=True),
        Column(
            "scene",
            "what it shows; pairs of one scene count as one",
            "–",
            "text",
            optional=True,
        ),
        Column("line", "line of its row in the dataset's table", "–", "whole"),
        Column("region", "where its object is", "–", "text"),
        Column("question", "what it is asked", "–", "text"),
        Column(
            "question_without",
            "what the run without the object is asked, if something else",
            "–",
            "text",
            optional=True,
        ),
        Column(
            "answers",
            "its own right answers, with and without the object, of which LD is the difference; "
            "empty: the study's",
            "–",
            "text",
            optional=True,
        ),
        Column("ld_with", "LD with the object", "logits", form="+.3f"),
        Column("ld_without", "LD without it", "logits", form="+.3f"),
        Column(
            "passed",
            "whether in both runs the most likely token is the right answer, LD has the right "
            "sign, and LD lies apart by `pairs.margin`",
            "–",
            "truth",
        ),
        Column(
            "reason",
            "why it does not pass, or cannot be run (then it has no LD); empty if it passes",
            "–",
            "text",
        ),
        Column(
            "spelling",
            "an answer in another case or with other space around it that wins, "
            "its probability and the run; empty if there is none",
            "–",
            "text",
            optional=True,
        ),
        *_answer("with"),
        *_answer("without"),
    ),
)
"""The dataset's own columns (factors) follow."""


def gate(columns: Mapping[str, Sequence[Any]], margin: float) -> Iterator[Part]:
    """Say how many pairs of ``gate.csv`` pass, and list those that do not, with their LD."""
    total, passed = len(columns["passed"]), sum(columns["passed"])
    yield Words(
        f"Gate: {passed:,} of {total:,} pairs pass ({passed / total:.1%}): both answers right, LD "
        f"at least {margin:g} logits apart.{''.join(_counts(columns))}{_shared(columns)}"
    )
    if len({*columns.get("answers", ())} - {""}) > 0:
        yield Words(
            "LD is the logit of each pair's right answer with the object, less that of its right "
            "answer without it (column answers of gate.csv)."
        )
    yield from _failed(columns, "terminal", {})
    yield from _failed(columns, "page", {"question": "question"})


def _failed(
    columns: Mapping[str, Sequence[Any]], place: Place, more: Mapping[str, str]
) -> Iterator[Part]:
    cells = {"pair": "pair", "line": "line", **more, "LD with": "ld_with",
             "LD without": "ld_without", "reason": "reason"}  # fmt: skip
    failed = [
        {name: columns[name][index] for name in cells.values()}
        for index, good in enumerate(columns["passed"])
        if not good
    ]
    most = _LISTED[place]
    if failed:
        yield grid("Pairs that failed", failed[:most], cells, GATE, place=place)
    if len(failed) > most:
        yield Words(f"and {len(failed) - most:,} more: see gate.csv", place)


def _shared(columns: Mapping[str, Sequence[Any]]) -> str:
    """Say how many scenes the pairs that pass show, or all if none does, if some share one."""
    if "scene" not in columns:  # of an earlier version
        return ""
    both = list(zip(columns["scene"], columns["passed"], strict=True))
    scenes = [scene for scene, good in both if good] or [scene for scene, _ in both]
    words = shared_words(len(scenes), len(set(scenes)))
    return f" {words}." if words else ""


def _counts(columns: Mapping[str, Sequence[Any]]) -> Iterator[str]:
    """Say in how many pairs LD has the wrong sign, another word wins, or answers are unlikely."""
    lds = zip(columns["ld_with"], columns["ld_without"], strict=True)
    measured = [(present, absent) for present, absent in lds if isfinite(present + absent)]
    refused = len(columns["passed"]) - len(measured)
    yield f" {refused:,} of them cannot be run, for the reason that each has." if refused else ""
    yield _count(
        sum(not present > 0 > absent for present, absent in measured), "an LD of the wrong sign"
    )
    alike = sum(str(reason).startswith(SEEN_ALIKE) for reason in columns["reason"])
    yield _count(alike, "two identical runs: the model is given the same of both pictures")
    if "p_yes_with" not in columns:  # of an earlier version
        return
    both = [
        min(yes + no, yes_without + no_without)
        for yes, no, yes_without, no_without in zip(
            *(columns[f"p_{word}_{run}"] for run in ("with", "without") for word in ("yes", "no")),
            strict=True,
        )
    ]
    unlikely = "less than {:g} of the probability on both answers together"
    if "said_with" not in columns:  # likewise
        neither = [p < NEITHER_BELOW for p in both]
        yield _count(sum(neither), unlikely.format(NEITHER_BELOW))
    else:
        said = zip(columns["said_with"], columns["said_without"], strict=True)
        neither = ["neither" in one for one in said]
        yield _count(sum(neither), "a run that says neither answer")
        yield _count(
            sum(isinstance(one, str) and one != "" for one in columns["spelling"]),
            "an answer in another spelling",
        )
    doubtful = (p < DOUBTFUL_BELOW and not no for p, no in zip(both, neither, strict=True))
    yield _count(sum(doubtful), unlikely.format(DOUBTFUL_BELOW))


def _count(pairs: int, what: str) -> str:
    """Say how many pairs have something; nothing if none has."""
    return f" {pairs:,} {'pair has' if pairs == 1 else 'pairs have'} {what}." if pairs else ""
