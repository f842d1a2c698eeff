"""What removing heads does to the model's answers: accuracy, yes-rate, free text.

A dataset of single pictures with a labelled answer (`--rows`: columns image, question, answer, and
perhaps choices, name, scene, group, objects, region; CSV, JSON lines or Parquet), or of pairs
(`--pairs`: both runs of each, wanting the first and the second answer), is answered with nothing
changed and with heads changed. A row that cannot be asked is listed with its reason, and the rest
are.

By default a row's answer is its first token: the likeliest of the whole vocabulary, case and space
aside (`word`), and the likeliest of the row's choices (`choice`). Accuracy, yes-rate, precision,
recall and F1 are POPE's; with a column `group`, NaturalBench's scores stand beside them, over pairs
the share of pairs with both answers right. `--generate N` lets the model go on for N tokens, the
heads changed at every one of them, and scores its text: `exact`, `contains`, `pope` (POPE's own
reading of a text), or `chair` (objects that are named and not there; needs `--synonyms` and a
column objects).

Each difference comes with an interval over scenes and what random heads of the same layers do; lost
and gained answers with McNemar's exact test, corrected over the sets. Heads change at the answer
position, unless `--positions` says otherwise.

Writes evaluate.csv (a row for each metric and set), rows.csv (what each row was answered),
refused.csv (rows that could not be asked), behaviour.png and run.yaml. The price is said before the
run. Ctrl-C keeps finished rows; the same command with `--resume` goes on.

Examples
--------
`headpatch evaluate --heads 21.14,21.16,23.9 --controls 4`

`headpatch evaluate --heads 21.14,21.16 --each --pairs pairs --limit 6`
(after `headpatch pairs --n 20`)

`headpatch evaluate --heads 21.14,21.16 --generate 6 --controls 2 --out generated`

`headpatch evaluate --heads layer:21,layer:23 --kinds reweight --alpha -0.5,0.5 --controls 2 --out
reweighted`
"""

from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from headpatch.core.question import Verb
from headpatch.core.study.options import Count, Strict, alphas_of, sequence
from headpatch.core.study.reading import Alphas, PathText
from headpatch.errors import InputError
from headpatch.heads import Selection
from headpatch.kinds import ALPHA, REWEIGHTED, kinds_help, refuse_alphas
from headpatch.questions.evaluate.columns import EVALUATION, REFUSED, ROWS

_KINDS = ("zero", "mean", "scale", "reweight", "resample")
_Class = Literal[
    "necessary", "sufficient", "redundant", "inhibitory", "mixed", "watches", "looks away", "inert"
]


def _file(metavar: str = "FILE") -> object:
    return Field(json_schema_extra={"metavar": metavar})


class EvaluateOptions(Strict):
    """Which rows are answered, which heads are changed, and how answers are scored."""

    rows: Annotated[PathText | None, _file()] = None
    """Table of single pictures: columns image, question, answer, and perhaps choices, name, scene,
    group, objects, region (CSV, JSON lines or Parquet)."""
    heads: str = Field("top:3", json_schema_extra={"metavar": "HEADS"})
    """Heads that are changed together: 24.17,23.20 or layer:24 or top:5 (of the attention ranking:
    that of --ranking, or of the pairs); v3.5 is one of the vision tower."""
    each: bool = False
    """Change each of these heads alone as well."""
    ranking: Annotated[PathText | None, _file("DIR")] = None
    """Folder of a rank whose order top:N takes."""
    verdict: Annotated[PathText | None, _file("DIR")] = None
    """Folder of a verdict, whose heads of --classes are changed in place of --heads: a set each."""
    classes: Annotated[tuple[_Class, ...], BeforeValidator(sequence), Field(min_length=1)] = (
        "necessary",
    )
    """Classes of --verdict, comma-separated: necessary, sufficient, redundant, inhibitory, mixed,
    watches, looks away, inert."""
    kinds: Annotated[
        tuple[Literal["zero", "mean", "scale", "reweight", "resample"], ...],
        BeforeValidator(sequence),
        Field(min_length=1, description=kinds_help(_KINDS)),
    ] = ("zero",)
    alpha: Alphas = ALPHA
    """How far a kind with a factor goes. scale multiplies z by it: 0 takes all away, 1 changes
    nothing; reweight multiplies attention by 1 + it: -1 takes it away, 0 changes nothing. Several,
    as 0,0.5,2: each of them."""
    toward: Literal["image", "region"] = "image"
    """To what kind reweight multiplies attention: image (every image token), region (those of the
    row's region)."""
    positions: Annotated[
        Literal["answer", "question", "image", "all"], Field(json_schema_extra={"metavar": "SCOPE"})
    ] = "answer"
    """Where z is changed in the prompt: answer, question, image, all."""
    controls: Count = 20
    """Random sets of heads of the same layers to compare with."""
    generate: Count = 0
    """Let the model say so many tokens, and score its text; 0 scores the first token."""
    through: Literal["text", "prompt"] = "text"
    """With --generate, where heads stay changed: text (at each generated token, too), or prompt
    (there alone)."""
    score: Literal["exact", "contains", "pope", "chair"] | None = None
    """With --generate: how a text is scored. If left out, pope where every answer is Yes or No,
    else contains."""
    synonyms: Annotated[PathText | None, _file()] = None
    """For chair: a line an object, its name first, then what else it is called, parted by
    commas."""
    factor: Annotated[str | None, Field(json_schema_extra={"metavar": "COLUMN"})] = None
    """Show the metrics for each value of a column of the table as well."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if Selection.parse(self.heads).names_vision and self.generate and self.verdict is None:
            found = f"{self.heads}, and --generate"
            raise InputError("--heads", found, "heads of the language model: 24.17,23.20")
        refuse_alphas(self.kinds, alphas_of(self.alpha))
        reweights = [kind for kind in self.kinds if kind in REWEIGHTED]
        if reweights and Selection.parse(self.heads).names_vision and self.verdict is None:
            found = f"{reweights[0]} of vision heads"
            raise InputError("--heads, --kinds", found, "heads that attend to the image's tokens")
        if self.score is not None and not self.generate:
            raise InputError("--score", self.score, "--generate as well", "It scores a text.")
        if (self.score == "chair") != (self.synonyms is not None):
            found = "chair without a table" if self.score == "chair" else "a table without chair"
            raise InputError("--synonyms", found, "--score chair and --synonyms together")
        if self.generate and self.through == "text" and "resample" in self.kinds:
            found = "resample, and --generate through the text"
            expected = "--through prompt: no other run says the same words"
            raise InputError("--kinds", found, expected)
        return self


VERB = Verb(
    "evaluate",
    "What becomes of the model's answers without these heads?",
    EvaluateOptions,
    __doc__ or "",
    (EVALUATION, ROWS, REFUSED),
    ("behaviour.png",),
    without=("region", "hold", "force"),
    finished="rows",
)
