"""Claims about heads and layers, and what a verdict's tables say to each.

The grammar, one claim a line (H is a head such as ``24.17``, A-B layers such as ``17-26`` or one):

    head H is necessary | sufficient | causal | redundant | inhibitory | inert
    head H looks at the region
    heads H and H are redundant
    layers A-B hold the sensitive heads        (those that attention picks)
    layers A-B hold the causal heads
    the heads of vision layers A-B are necessary
    vision layers A-B carry the object

The last is supported by the one before it; if a layer's heads are not necessary, the object may
still pass through the layer, which only patching its stream (``headpatch path``) can tell, unless
nothing of the layer reaches the language model.

A claim is *supported* or *contradicted* only by something shown; everything between is *not
testable* with these data, and the figure says why.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from headpatch.errors import InputError
from headpatch.heads import Grid, Head, HeadSet

if TYPE_CHECKING:
    import pandas

Outcome = Literal["supported", "contradicted", "not testable"]

_HEAD = r"(\d+\.\d+)"
_LAYERS = r"(\d+)(?:-(\d+))?"
_FORMS: Mapping[str, str] = {
    "class": rf"head {_HEAD} is (necessary|sufficient|causal|redundant|inhibitory|inert)",
    "looks": rf"head {_HEAD} looks at the region",
    "together": rf"heads {_HEAD} and {_HEAD} are redundant",
    "hold": rf"layers? {_LAYERS} holds? the (sensitive|causal) heads",
    "vision heads": rf"the heads of vision layers? {_LAYERS} are necessary",
    "vision": rf"vision layers? {_LAYERS} (?:carry|carries) the object",
}
_EXAMPLES = (
    "a claim such as 'head 24.17 is necessary', 'head 24.17 looks at the region', 'heads 24.17 and "
    "23.20 are redundant', 'layers 17-26 hold the sensitive heads' or 'vision layer 8 carries the "
    "object'"
)
_CAUSAL = ("necessary+sufficient", "necessary", "sufficient", "redundant", "inhibitory")


@dataclass(frozen=True)
class Claim:
    """A claim, read.

    Attributes
    ----------
    form
        Which line of the grammar.
    heads, layers, word
        What the line leaves open: heads, first and last layer, and a word.
    """

    text: str
    form: str
    heads: tuple[Head, ...] = ()
    layers: tuple[int, int] = (0, 0)
    word: str = ""

    @classmethod
    def parse(cls, text: str, argument: str = "claims") -> "Claim":
        """Read a claim.

        Raises
        ------
        InputError
            If it is none of the grammar's lines.
        """
        plain = " ".join(text.lower().rstrip(". ").split())
        for form, pattern in _FORMS.items():
            if match := re.fullmatch(pattern, plain):
                parts = match.groups()
                heads = tuple(Head.parse(part) for part in parts if part and "." in part)
                word = next((part for part in parts if part and part.isalpha()), "")
                numbers = [int(part) for part in parts if part and part.isdigit()]
                layers = (numbers[0], numbers[-1]) if numbers else (0, 0)
                if layers[0] > layers[1] or len(set(heads)) < len(heads):
                    break
                return cls(text, form, heads, layers, word)
        raise InputError(argument, repr(text), _EXAMPLES)

    def check(self, grid: Grid, vision_layers: int | None = None, argument: str = "claims") -> None:
        """Refuse a claim about heads or layers that the model does not have.

        Parameters
        ----------
        vision_layers
            None if it is not known.

        Raises
        ------
        InputError
            If one is out of range.
        """
        for head in self.heads:
            grid.check(head, f"{argument}: {self.text!r}")
        layers = vision_layers if "vision" in self.form else grid.layers
        if layers is not None and self.layers[1] >= layers:
            raise InputError(
                f"{argument}: {self.text!r}",
                f"layer {self.layers[1]} is out of range",
                f"layers 0-{layers - 1} in this model",
            )


@dataclass(frozen=True)
class Judged:
    """A claim and what is shown of it; `figure` is the number behind the outcome, in words."""

    claim: str
    outcome: Outcome
    figure: str


@dataclass(frozen=True, eq=False)
class Evidence:
    """A verdict's tables.

    Attributes
    ----------
    heads, sets
        ``verdicts.csv`` and ``partners.csv``.
    delta, level
        By what heads were judged.
    top
        How many heads attention picks.
    vision
        ``vision.csv``; None if there is none.
    """

    heads: "pandas.DataFrame"
    sets: "pandas.DataFrame"
    delta: float
    level: float
    top: int
    vision: "pandas.DataFrame | None" = field(default=None)

    @property
    def grid(self) -> Grid:
        """The heads that there are."""
        return Grid(int(self.heads["layer"].max()) + 1, int(self.heads["head"].max()) + 1)

    def row(self, head: Head) -> Mapping[str, Any]:
        """Return a head's row."""
        place = head.layer * self.grid.heads + head.head
        return _records(self.heads.iloc[place : place + 1])[0]


def judge_claim(claim: Claim, seen: Evidence) -> Judged:
    """Say what the tables show of a claim.

    Raises
    ------
    InputError
        If it names a head or a layer that the model does not have.
    """
    claim.check(seen.grid, None if seen.vision is None else len(seen.vision))
    judges: Mapping[str, Callable[[Claim, Evidence], tuple[Outcome, str]]] = {
        "class": _class,
        "looks": _looks,
        "together": _together,
        "hold": _hold,
        "vision heads": _vision_heads,
        "vision": _vision,
    }
    outcome, figure = judges[claim.form](claim, seen)
    return Judged(claim.text, outcome, figure)


def _class(claim: Claim, seen: Evidence) -> tuple[Outcome, str]:
    row, alpha = seen.row(claim.heads[0]), 1 - seen.level
    shown = "; ".join(_figure(row, name) for name in ("necessity", "sufficiency"))
    said = f"verdict {row['verdict']}; {shown}"
    if claim.word in ("necessary", "sufficient"):
        name = {"necessary": "necessity", "sufficient": "sufficiency"}[claim.word]
        if row[f"{name}_low"] > seen.delta and row[f"{name}_q"] < alpha:
            return "supported", said
        return "contradicted" if row[f"{name}_high"] < seen.delta else "not testable", said
    causal = row["verdict"] in _CAUSAL
    within = row["verdict"] in ("watches", "inert")
    if claim.word == "causal":
        return _either(causal, within), said
    if claim.word == "inert":
        return _either(within, causal), f"{said}; equivalence q = {row['equivalence_q']:.1g}"
    if claim.word == "inhibitory":
        lows = [row[f"{name}_low"] for name in ("necessity", "sufficiency")]
        return _either(row["verdict"] == "inhibitory", min(lows) > -seen.delta), said
    if row["verdict"] == "redundant":
        return "supported", f"{said}; together with {row['partners']}"
    alone = row["necessity_low"] > seen.delta and row["necessity_q"] < alpha
    why = "necessary alone" if alone else "no partner was found among the heads that were paired"
    return "contradicted" if alone else "not testable", f"{said}; {why}"


def _looks(claim: Claim, seen: Evidence) -> tuple[Outcome, str]:
    row = seen.row(claim.heads[0])
    if row["attention_diff"] != row["attention_diff"]:
        return "not testable", "the head does not attend to the image's tokens"
    more = row["attention_diff_low"] > 0 and row["attention_diff_q"] < 1 - seen.level
    said = f"{_figure(row, 'attention_diff')}, rank {row['attention_rank']}"
    return _either(more, row["attention_diff_high"] < 0), said


def _together(claim: Claim, seen: Evidence) -> tuple[Outcome, str]:
    name = str(HeadSet(claim.heads))
    rows = seen.sets[seen.sets["heads"] == name]
    if rows.empty:
        return "not testable", f"{name} was not changed together: headpatch combine does that"
    row = _records(rows)[0]
    said = (
        f"joint necessity {_between(row, 'joint')}, excess over the parts "
        f"{_between(row, 'excess')}, q = {row['q']:.1g}"
    )
    return _either(bool(row["redundant"]), row["excess_high"] < seen.delta), said


def _hold(claim: Claim, seen: Evidence) -> tuple[Outcome, str]:
    """At least half of the heads there, and more than chance, or fewer than half."""
    from scipy.stats import hypergeom

    first, last = claim.layers
    table = seen.heads
    if claim.word == "causal":
        wanted = table[table["verdict"].isin(_CAUSAL)]
    else:
        wanted = table[table["attention_rank"] <= seen.top]
    if wanted.empty:
        return "not testable", "no head is shown to act"
    inside = int(wanted["layer"].between(first, last).sum())
    there = int(table["layer"].between(first, last).sum())
    p = float(hypergeom.sf(inside - 1, len(table), there, len(wanted)))
    said = (
        f"{inside} of {len(wanted)} lie in layers {first}-{last}, which hold {there} of "
        f"{len(table):,} heads (p = {p:.1g} if spread evenly)"
    )
    half = 2 * inside >= len(wanted)
    return _either(half and p < 1 - seen.level, not half), said


def _vision_heads(claim: Claim, seen: Evidence) -> tuple[Outcome, str]:
    """Every layer's must be; one shown not to be contradicts."""
    if seen.vision is None:
        return "not testable", "the verdict changed no vision layers (verdict.vision in the study)"
    rows = _layers(claim, seen.vision)
    said = "; ".join(f"layer {row['layer']} {_between(row, 'necessity')}" for row in rows)
    shown = [
        row["necessity_low"] > seen.delta and row["necessity_q"] < 1 - seen.level for row in rows
    ]
    short = [row["necessity_high"] < seen.delta for row in rows]
    return _either(all(shown), any(short)), f"necessity of all heads of a layer: {said}"


def _vision(claim: Claim, seen: Evidence) -> tuple[Outcome, str]:
    outcome, said = _vision_heads(claim, seen)
    if outcome == "supported" or seen.vision is None:
        return outcome, said
    nothing = [
        row["necessity_low"] == row["necessity_high"] == 0 for row in _layers(claim, seen.vision)
    ]
    if any(nothing):
        return "contradicted", f"{said}; exactly 0: nothing of it reaches the language model"
    return "not testable", f"{said}; what else passes the layer, `headpatch path` shows"


def _layers(claim: Claim, vision: "pandas.DataFrame") -> list[Mapping[str, Any]]:
    return _records(vision[vision["layer"].between(*claim.layers)])


def _records(table: "pandas.DataFrame") -> list[Mapping[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _either(supported: bool, contradicted: bool) -> Outcome:
    return "supported" if supported else "contradicted" if contradicted else "not testable"


def _figure(row: Mapping[str, Any], name: str) -> str:
    return (
        f"{name.replace('_diff', ' difference')} {_between(row, name)}, q = {row[f'{name}_q']:.1g}"
    )


def _between(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:+.3f} ({row[f'{name}_low']:+.3f} to {row[f'{name}_high']:+.3f})"
