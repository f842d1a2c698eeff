"""Sections of the page that follow from what a question declares: its tables and its view."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headpatch.core import gate_view
from headpatch.core.output.folder import Part as RunPart
from headpatch.core.output.folder import Results, load, read, reading_of
from headpatch.core.question import Context, Verb, verbs
from headpatch.present.chart import Chart
from headpatch.present.interactive import figures
from headpatch.present.parts import Grid, Part, Words
from headpatch.present.section import Figure, Section

_ACROSS = ("one", "two", "three")  # styles of charts by the number of panels side by side
# headings of columns whose cells are more than texts: a head to choose, a class in its colour
_KINDS = ("head", "verdict", "outcome")
_SHARES = [f"p_{answer}_{run}" for run in ("with", "without") for answer in ("yes", "no")]


def section(name: str) -> Callable[[Results], Section | None]:
    """Return what makes the section of a question; nothing comes of it unless it was asked."""
    verb = next(one for one in verbs() if one.name == name)

    def make(results: Results) -> Section | None:
        runs = runs_of(verb, results.parts)
        drawn: dict[str, Figure] = {}
        made: list[dict[str, Any]] = []
        for run in runs:
            with reading_of(run, verb.files[0]):
                parts = list(verb.question().view(saved(verb, run), context(verb, run)))
                own = [block for part in parts for block in _blocks(part, drawn)]
            if own and len(runs) > 1:
                made.append({"kind": "run", "text": run.name or "this folder"})
            made += own
        if not made:
            return None
        return Section(verb.name, verb.asks, {"blocks": made}, drawn, template="view")

    return make


def runs_of(verb: Verb, parts: Iterable[RunPart]) -> list[RunPart]:
    """Return the runs of a question; several verbs may write a table of one name."""
    first = verb.files[:1]
    return [part for part in parts if first and part.has(first[0]) and verb.name in part.verbs]


def saved(verb: Verb, run: RunPart) -> dict[str, Any]:
    """Read what a run saved for a question, by file name."""
    tables = {
        schema.file: read(run, schema.file, schema.needed)
        for schema in verb.schemas
        if run.has(schema.file)
    }
    names = [name for name in verb.others if name.endswith(".pt") and run.has(name)]
    return tables | {name: load(run, name, {}) for name in names}


def context(verb: Verb, run: RunPart) -> Context:
    """Return what words and figures say beside the data, from the run's record."""
    study, facts = run.study, run.run
    said = facts if "question" in facts else study  # of rows that each have one, the run says so
    question, region = str(said.get("question", "")), str(said.get("region", ""))
    pairs = facts.get("run") if run.many else None
    if run.many and run.has("gate.csv"):
        table = read(run, "gate.csv", {"question": "text", "region": "text", "passed": "truth"})
        ran = table if study.get("force") else table[table["passed"]]
        asked, names = ran["question"].unique(), ran["region"].unique()
        own = asked[0] if len(asked) == 1 else f"each pair's own, {len(asked):,} questions"
        question = f"{own} ({len(ran):,} pairs)"
        region = names[0] if len(names) == 1 else f"each pair's own ({len(names):,} regions)"
    valid = facts.get("valid", True) is not False
    level = facts.get("level", study.get("pairs", {}).get("level", 0.95))
    options = study.get(verb.name, {}) if verb.options else {}
    floor = facts.get("noise_floor")
    return Context(question, region, valid, pairs, level, floor, options, study, facts)


def _blocks(part: Part, drawn: dict[str, Figure]) -> Iterator[dict[str, Any]]:
    """Return what the template places: words, tables, and figures by name."""
    if isinstance(part, Words) and part.place != "terminal" and not part.strong:
        yield {"kind": "words", "text": part.text}
    elif isinstance(part, Grid) and part.place != "terminal":
        kinds = [heading if heading in _KINDS else "" for heading in part.headings]
        rows = [list(zip(row, part.numeric, kinds, strict=True)) for row in part.rows]
        heads = list(zip(part.headings, part.numeric, strict=True))
        yield {"kind": "grid", "title": part.title, "headings": heads, "rows": rows}
    elif isinstance(part, Chart):
        own = {
            f"{name}{f'-{len(drawn)}' * (name in drawn)}": one
            for name, one in figures(part).items()
        }
        drawn.update(own)
        if own:
            across = _ACROSS[min(part.columns, 3) - 1]
            yield {"kind": "chart", "names": list(own), "note": part.note, "across": across}


def gate(results: Results) -> Section | None:
    """Say which pairs passed the gate; None unless a dataset was run."""
    table = results.table("gate.csv", gate_view.GATE.needed)
    if table is None or table.empty:
        return None
    if set(_SHARES) <= set(table):  # one that is not known is not unlikely
        from pandas import to_numeric

        table[_SHARES] = table[_SHARES].apply(to_numeric, errors="coerce").fillna(1.0)
    margin = float(results.main.study.get("pairs", {}).get("margin", 1.0))
    parts = gate_view.gate({str(name): table[name].tolist() for name in table}, margin)
    blocks = [block for part in parts for block in _blocks(part, {})]
    return Section("gate", "Which pairs passed", {"blocks": blocks}, template="view")
