"""Damaged parts of interrupted runs: a resumed run ends with the tables of an unbroken one.

    python -m tests.campaigns.parts [VERB ...] [--rounds 42]

VERB is one of sweep, sweep-pairs, path, trace, trace-pairs and verdict; all of them by default.
Each is run to its end once, then interrupted. In every round one of the parts that it left is
damaged, the run resumed and its tables compared byte for byte with those of the unbroken run; a
part that does not fit must be measured anew, and said to be so once. Prints a row a verb: rounds,
those in which something was *measured anew*, those in which no damage had to be told (*kept*: a
part is missing, or one of another run lies beside), *faulty* ones. Exit 1 if there is a fault.
"""

import argparse
import io
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from headpatch.core import session
from headpatch.core.store import Store
from tests.campaigns.table import Tally
from tests.command import headpatch, of_pair
from tests.datasets import planted_pairs
from tests.planted import planted_dataset, planted_study, save_planted
from tests.tiny import QUESTION

STUDY = """\
verdict: {top: 5, nulls: 1, vision: 1, controls: 0, attribution: 0, random: 1, noise: 1}
pairs: {resamples: 100}
"""


@dataclass(frozen=True)
class Run:
    """A command line, and how much of it is finished when it is interrupted: rows, pairs, ..."""

    words: Sequence[object]
    finished: int


def runs(place: Path) -> dict[str, Run]:
    """A run of each verb that leaves parts, all but its ``--out``."""
    pair = [*of_pair(place), "--question", QUESTION, "--region", "top-left"]
    pairs = ["--model", place / "model", "--pairs", place / "pairs"]
    edges = ["--heads", "1.1", "--edges", "answer-region", "--window", 4, "--limit", 3]
    return {
        "sweep": Run(["sweep", *pair, "--kinds", "zero,resample"], 60),
        "sweep-pairs": Run(
            ["sweep", *pairs, "--kinds", "mean,resample", "--directions", "noising", "--seed", 1],
            70,
        ),
        "path": Run(["path", *pairs, *edges], 2),
        "trace": Run(["trace", *pair, "--forced", "both", "--kinds", "resample"], 2),
        "trace-pairs": Run(
            ["trace", *pairs, "--tokens", 2, "--limit", 3, "--kinds", "resample,mean",
             "--directions", "noising"],
            2,
        ),
        "verdict": Run(
            ["verdict", "--model", place / "model", "--config", place / "study.yaml",
             "--pairs", place / "many"],
            12,
        ),
    }  # fmt: skip


def build(place: Path) -> None:
    """Write the planted model, a pair, two datasets and a study."""
    save_planted(place / "model", noise=0.05)
    planted_study(place)  # for its pictures
    (place / "pairs").mkdir()
    planted_pairs(place / "pairs")
    planted_dataset(place / "many", 10)
    (place / "study.yaml").write_text(STUDY, encoding="utf-8")


@contextmanager
def quick_runs() -> Iterator[None]:
    """Let runs load a model once, draw nothing, judge on few pairs and save every row at once."""
    real, loaded = session.load, dict[str, Any]()

    def load(*words: Any) -> Any:
        key = repr(words)
        if key not in loaded:
            loaded[key] = real(*words)
        return loaded[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "load", load)
        patch.setattr("headpatch.core.saved_verdict.LEAST", 4)
        patch.setattr("headpatch.questions.sweep.finished_rows._SHARE", 1e9)
        patch.setattr("headpatch.core.output.writing.draw", lambda *_, **__: None)
        yield


def tables(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in out.glob("*.csv")}


def interrupt(run: Run, out: Path, *more: object) -> Path:
    """Press Ctrl-C once so much of a run is finished; return the folder of its parts."""
    put = Store.put

    def stopping(store: Store, *content: Any, **options: Any) -> None:
        put(store, *content, **options)
        if store.count >= run.finished:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "put", stopping)
        said = headpatch(*run.words, *more, "--out", out)
    assert said.code == 130, said.err
    (folder,) = (path for path in out.iterdir() if path.is_dir())
    return folder


@dataclass
class Parts:
    """The part that is damaged, the others of its run, and those of another run."""

    part: Path
    others: Sequence[Path]
    foreign: Sequence[Path]
    rng: random.Random

    def flip(self, end: int) -> None:
        """Flip a bit before a byte."""
        content = bytearray(self.content)
        content[self.rng.randrange(end)] ^= 1 << self.rng.randrange(8)
        self.content = content

    @property
    def content(self) -> bytes:
        return self.part.read_bytes()

    @content.setter
    def content(self, content: bytes) -> None:
        self.part.write_bytes(content)

    @property
    def halves(self) -> tuple[bytes, bytes]:
        """The line that names the part and holds its checksum, and what it holds."""
        head, _, payload = self.content.partition(b"\n")
        return head, payload


def cut(parts: Parts) -> None:
    content = parts.content
    parts.content = content[: parts.rng.randrange(1, len(content))]


def longer(parts: Parts) -> None:
    parts.content += parts.rng.randbytes(parts.rng.randrange(1, 50))


def garbage(parts: Parts) -> None:
    parts.content = parts.rng.randbytes(parts.rng.randrange(1, 5000))


def swap(parts: Parts) -> None:
    """Let two parts change their names."""
    other = parts.rng.choice(parts.others)
    content, parts.content = parts.content, other.read_bytes()
    other.write_bytes(content)


def copy(parts: Parts, foreign: bool = False) -> None:
    """Put another part in its place: another run's if so asked, or if there is but one."""
    sources = parts.foreign if foreign or not parts.others else parts.others
    parts.content = parts.rng.choice(sources).read_bytes()


def foreign_beside(parts: Parts) -> None:
    source = parts.rng.choice(parts.foreign)
    shutil.copy(source, parts.part.parent / source.name)


def other_count(parts: Parts) -> None:
    """Let it say that it counts as seven."""
    head, payload = parts.halves
    words = head.split()
    words[3] = b"7"
    parts.content = b" ".join(words) + b"\n" + payload


def changed(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Parts], None]:
    """Change the first figure that a part holds, but not its checksum."""

    def damage(parts: Parts) -> None:
        head, payload = parts.halves
        left = [change]

        def copied(value: Any) -> Any:
            if isinstance(value, dict):
                return {key: copied(one) for key, one in value.items()}
            if left and isinstance(value, float):
                left.pop()
                return value + 1.0
            if left and torch.is_tensor(value) and value.is_floating_point() and value.numel():
                return left.pop()(value)
            return value

        content = copied(torch.load(io.BytesIO(payload), weights_only=True))
        stream = io.BytesIO()
        torch.save(content, stream)
        parts.content = head + b"\n" + stream.getvalue()

    return damage


def one_more(figures: torch.Tensor) -> torch.Tensor:
    """Add 1 to the first of some figures."""
    found = figures.clone()
    found.view(-1)[0] += 1.0
    return found


DAMAGES: dict[str, Callable[[Parts], object]] = {
    "flip": lambda parts: parts.flip(len(parts.content)),
    "flip in the head": lambda parts: parts.flip(len(parts.halves[0]) + 1),
    "cut": cut,
    "empty": lambda parts: parts.part.write_bytes(b""),
    "zeros": lambda parts: parts.part.write_bytes(bytes(len(parts.content))),
    "garbage": garbage,
    "longer": longer,
    "swap": swap,
    "copy": copy,
    "foreign over": partial(copy, foreign=True),
    "foreign beside": foreign_beside,
    "figure": changed(one_more),
    "dtype": changed(lambda figures: figures.to(torch.float16)),
    "shape": changed(lambda figures: figures[:-1] if figures.ndim else figures.reshape(1)),
    "missing": lambda parts: parts.part.unlink(),
    "without a head": lambda parts: parts.part.write_bytes(parts.halves[1]),
    "renamed": lambda parts: parts.part.rename(parts.part.with_name("0" * 64 + ".unit")),
    "other count": other_count,
}

OFTEN = {"flip": 4, "cut": 2, "figure": 2}
ROUNDS = tuple(kind for kind in DAMAGES for _ in range(OFTEN.get(kind, 1)))
HARMLESS = {"nothing", "missing", "foreign beside"}
"""What leaves no part that does not fit."""


def resumed(run: Run, out: Path, kind: str, whole: dict[str, bytes]) -> str:
    """Resume a run; say what is wrong with it, in one text."""
    try:
        said = headpatch(*run.words, "--out", out, "--resume")
    except (Exception, pytest.fail.Exception) as error:
        return repr(error)[:200]
    if said.code != 0:
        return f"exit {said.code}: {said.err[-200:]}"
    if "Traceback" in said.err:
        return f"raw: {said.err[-200:]}"
    found = tables(out)
    if found != whole:
        return f"other tables: {[name for name in whole if found.get(name) != whole[name]]}"
    told = sum("measured anew" in line for line in said.err.splitlines())
    if kind not in HARMLESS and not told:
        return f"not told: {said.err}"
    return "told twice" if told > 1 else ""


def campaign(verb: str, run: Run, root: Path, rounds: int, tally: Tally) -> None:
    """Damage the parts of one run so many times."""
    out, saved = root / "out", root / "saved"
    said = headpatch(*run.words, "--out", out)
    assert said.code == 0, said.err
    whole = tables(out)
    assert whole, "a run without tables shows nothing"
    shutil.rmtree(out)
    name = interrupt(run, out).name
    out.rename(saved)
    foreign = sorted(interrupt(run, root / "other", "--seed", 5).iterdir())
    for number, kind in enumerate(["nothing", *(ROUNDS[n % len(ROUNDS)] for n in range(rounds))]):
        rng = random.Random(f"{verb}/{number}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(saved, out)
        files = sorted((out / name).iterdir())
        part = rng.choice(files)
        others = [path for path in files if path != part]
        if kind == "swap" and not others:
            continue
        if kind != "nothing":
            DAMAGES[kind](Parts(part, others, foreign, rng))
        fault = resumed(run, out, kind, whole)
        ending = "" if fault else "kept" if kind in HARMLESS else "measured anew"
        tally.add(verb, ["rounds", ending], [fault] if fault else [], f"round {number}, {kind}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    known = list(runs(Path()))
    parser.add_argument("verbs", nargs="*", metavar="VERB", help=", ".join(known))
    parser.add_argument("--rounds", type=int, default=2 * len(ROUNDS), help="of each verb")
    options = parser.parse_args()
    if unknown := set(options.verbs) - set(known):
        parser.error(f"no such verb: {', '.join(sorted(unknown))}")
    tally = Tally("verb", ["rounds", "measured anew", "kept"])
    with tempfile.TemporaryDirectory() as folder, quick_runs():
        root = Path(folder)
        build(root / "place")
        for verb in options.verbs or known:
            (root / verb).mkdir()
            run = runs(root / "place")[verb]
            campaign(verb, run, root / verb, options.rounds, tally)
    tally.show()
    sys.exit(bool(tally.faults))


if __name__ == "__main__":
    main()
