"""What a person sees while a verb runs and when it ends; what a script reads."""

import json
import math
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment
from rich.text import Text

from headpatch.core.outlook import Outlook
from headpatch.core.study.study import Study
from headpatch.text import visible

if TYPE_CHECKING:
    import pandas

    from headpatch.core.baseline_runs import Survey
    from headpatch.core.session import Session
    from headpatch.engine.patching import OnProgress
    from headpatch.models.vlm import VLM


_EVERY = 30.0  # seconds between lines of progress that nobody watches
_ALL = 0.995  # what 100% is written for
_JSON_ACTS = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff]")  # below: json escapes them


class Terminal(Console):
    """A console on which a user's words are but words: no markup, no control characters.

    Whatever is printed is rendered here, cells of tables too; the console's own colours come later.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a text into what can be measured and shown."""
        return super().render_str(visible(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterator[Segment]:
        """Turn anything into pieces of text."""
        for piece in super().render(renderable, options):
            yield piece if piece.control else piece._replace(text=visible(piece.text))


def say(text: str, stderr: bool = False) -> None:
    """Print a line; what would act on a terminal is spelled out. Nobody need read stderr."""
    with suppress(OSError) if stderr else nullcontext():
        print(visible(text), file=sys.stderr if stderr else sys.stdout)


def output_folder(study: Study) -> Path:
    """Return the study's output folder, or refuse it, or the style, if it cannot be written."""
    from headpatch.core.output.staging import check_folder

    folder = Path(study.out)
    check_folder(folder)
    if study.figures.style is not None:
        from headpatch.present.canvas import check_style

        check_style(study.figures.style)
    return folder


@contextmanager
def progress(what: str, quiet: bool, outlook: Outlook | None = None) -> "Iterator[OnProgress]":
    """Show on stderr how far something long is, and how much is left of all that is to come.

    A bar on a terminal; in a pipe or a file a plain line every `_EVERY` seconds, and at the end of
    a stage that took as long.
    """
    console, outlook = Terminal(stderr=True), outlook or Outlook()
    outlook.begin(what)
    try:
        with nullcontext(_silent) if quiet else _watched(console, what, outlook) as advance:
            yield advance
    finally:
        took = outlook.end()
    if took >= _EVERY and not quiet and not console.is_terminal:
        warn(f"{what}: done in {_time(took)}")


def _silent(_done: int, _total: int) -> None:
    pass


@contextmanager
def _watched(console: Terminal, what: str, outlook: Outlook) -> "Iterator[OnProgress]":
    if not console.is_terminal:
        yield _lines(what, outlook)
        return
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    left = TextColumn("{task.fields[left]}", style="progress.remaining")
    with Progress(*columns, left, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, left="")

        def advance(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total, left=_left(outlook, done, total))

        yield advance


def _lines(what: str, outlook: Outlook) -> "OnProgress":
    said = outlook.clock()

    def advance(done: int, total: int) -> None:
        nonlocal said
        if (now := outlook.clock()) - said >= _EVERY:
            said = now
            left = _left(outlook, done, total)
            warn(f"{what}: {done:,} of {total:,}{', ' * bool(left)}{left}")

    return advance


def _left(outlook: Outlook, done: int, total: int) -> str:
    seconds = outlook.left(done, total)
    return "" if seconds is None or done >= total else f"about {_time(seconds)} left"


def _time(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def warn(text: str) -> None:
    """Say something on stderr that the results do not."""
    say(f"headpatch: {text}", stderr=True)


def say_replaced(folder: Path, verb: str) -> None:
    """Say on stderr, as files are moved to `folder`, that another verb's effects.csv goes."""
    from headpatch.core.output.records import effects_by

    other = effects_by(folder)
    if other not in (None, verb):
        file = folder / "effects.csv"
        warn(f"{file} of an earlier {other} is replaced; another --out keeps both")


def warn_of(session: "Session") -> None:
    """Say on stderr what is odd about the runs' answers, their prompt, or what the model sees."""
    for caution in (*session.cautions, *filter(None, [session.cut_away])):
        warn(caution)


def print_json(session: "Session", folder: Path, names: list[str], **more: Any) -> None:
    """Print what a script reads of one pair, with `more`; what is odd is said on stderr too."""
    warn_of(session)
    content = {
        "question": session.pair.question,
        "region": session.pair.region.name,
        "model": session.vlm.name,
        **_unused(session.vlm),
        "valid": session.valid,
        "ld_with": session.base.ld_with,
        "ld_without": session.base.ld_without,
        "picture_shown": session.picture_shown,
        "region_shown": session.region_shown,
        "answer_probabilities": session.answer_probabilities,
        **({} if session.valid else {"invalid_because": list(session.faults)}),
        **more,
        "files": [str(folder / name) for name in names],
    }
    print_object(content)


def print_pairs(vlm: "VLM", survey: "Survey", folder: Path, names: list[str], **more: Any) -> None:
    """Print what a script reads of many pairs: the model, how the gate went, `more`, the files."""
    failed = [
        {"pair": one.entry.name, "line": one.entry.line, "ld_with": one.ld_with,
         "ld_without": one.ld_without, "reason": one.reason, **one.columns()}
        for one in survey.gated
        if not one.passed
    ]  # fmt: skip
    if cut := _cut_away(survey):
        warn(cut)
    caution = _caution(survey)
    content = {
        "model": vlm.name,
        **_unused(vlm),
        "valid": survey.valid,
        **survey.counts,
        "failed": failed,
        **({"caution": caution} if caution else {}),
        **({"cut_away": cut} if cut else {}),
        **more,
        "files": [str(folder / name) for name in names],
    }
    print_object(content)


def _unused(vlm: "VLM") -> dict[str, int]:
    """Return what a script reads of weights that were left out; nothing if none were."""
    return {"unused_weights": vlm.unused} if vlm.unused else {}


def _cut_away(survey: "Survey") -> str:
    """What the processor does not show of the pairs; empty if it shows all, or is not known."""
    pictures = [one.picture_shown for one in survey.gated if one.picture_shown < _ALL]
    regions = [one.region_shown for one in survey.gated if one.region_shown < _ALL]
    if not pictures and not regions:
        return ""

    def down(shares: list[float]) -> str:
        return f" (down to {min(shares):.0%} of it)" if shares else ""

    return (
        f"the processor cuts away part of the picture in {len(pictures):,} of "
        f"{len(survey.gated):,} pairs{down(pictures)}, part of the region in "
        f"{len(regions):,}{down(regions)}"
    )


def _caution(survey: "Survey") -> str:
    """Say that intervals over so few pairs are rough; empty if they are enough."""
    from headpatch.core.saved_verdict import LEAST

    count = len(survey.entries)
    if count >= LEAST:
        return ""
    return (
        f"Caution: {count} pairs. With fewer than {LEAST}, intervals over pairs are rough: "
        "they may miss the mean more often than they say, or reach beyond what is possible."
    )


def print_object(content: dict[str, Any]) -> None:
    """Print one JSON object on one line, with what stdout or a terminal cannot take escaped."""
    unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
    text = json.dumps(plain(content), ensure_ascii=not unicode, allow_nan=False)
    print(_JSON_ACTS.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def records(table: "pandas.DataFrame") -> list[dict[str, Any]]:
    """Return the rows of a table, as a script reads them: every number in full."""
    cells = table.astype(object).where(table.notna(), None)
    return [{str(name): cell for name, cell in row.items()} for row in cells.to_dict("records")]


def plain(value: Any) -> Any:
    """Turn tensors into lists, and what JSON has no word for (NaN, infinity) into null."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return plain(value.tolist()) if hasattr(value, "tolist") else value


def show(console: Console, *parts: RenderableType) -> None:
    """Print tables and texts; a table wider than the console runs over its edge, uncut."""
    for part in parts:
        console.print(part, crop=False)


def print_files(
    console: Console,
    session: "Session",
    folder: Path,
    names: list[str],
    in_full: "tuple[str, str] | None",
) -> None:
    """Name the files; say first what the model answers, if it is not valid, and what is cut away.

    It answers `in_full` where that is known beyond the first token.
    """
    from headpatch.present import tables

    warn_of(session)
    lds = session.base.ld_with, session.base.ld_without
    readings = zip(session.answer_probabilities.values(), lds, strict=True)
    runs = [{**reading, "ld": ld} for reading, ld in readings]
    show(console, tables.answers(session.pair.question, session.study.answers, runs, in_full))
    if session.cut_away:
        console.print(f"Note: {session.cut_away}.", soft_wrap=True, markup=False)
    if not session.valid:
        faults = "; ".join(session.faults)
        console.print(f"INVALID STUDY: {faults}", style="bold red", markup=False)
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole


def print_pair_files(
    console: Console, study: Study, survey: "Survey", folder: Path, names: list[str]
) -> None:
    """Say how the gate went, and name the files."""
    from headpatch.core.gate_view import gate
    from headpatch.present import tables
    from headpatch.present.tables import renderables

    show(console, *renderables(gate(survey.gate_columns(), study.pairs.margin)))
    if not survey.valid:
        console.print("INVALID STUDY: pairs that failed the gate were run.", style="bold red")
    if caution := _caution(survey):
        console.print(caution)
    if cut := _cut_away(survey):
        warn(cut)
        console.print(f"Note: {cut}.", soft_wrap=True, markup=False)
    console.print(tables.files(str(folder), names), soft_wrap=True)  # paths stay whole
