"""Thousands of broken and odd inputs: each is refused in one line, or read as it is written.

    python -m tests.campaigns.inputs [--n 3200] [--seed 0]

Prints a row a kind: inputs, refused, read; and of what went wrong: *silent* (read as something else
than an independent reading says), *crashed* (an exception that is no one-line error), *hung* (over
20 s). Exit 1 if one did. No model runs; what a model makes of good input the tests show.
"""

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import FrameType

import numpy as np
from PIL import Image

from headpatch.cli import main as command_line
from headpatch.core.claims_grammar import Claim
from headpatch.core.study.options import edge_ends, layer_span
from headpatch.core.study.study import Study
from headpatch.errors import InputError
from headpatch.heads import Grid, Selection
from headpatch.pairs.manifest import Manifest
from headpatch.pairs.pair import read_image
from headpatch.pairs.region import REGIONS, Region

LIMIT = 20  # seconds that an input may take

Attempt = Callable[[], bool]
"""Reads one input; returns whether it was read as an independent reading has it."""


class HangError(Exception):
    """An input took too long."""


def scalars(rng: random.Random) -> str:
    """A plain YAML scalar, many of them words that YAML 1.1 turns into something else."""
    fixed = [
        "yes", "no", "Yes", "NO", "on", "off", "On", "y", "n", "true", "False", "null", "~", "None",
        "24.10", "24.1", "1e3", "1.0e+3", "0x1F", "017", "0o17", "1_000", "1:30", "190:20:30.15",
        "2024-01-01", "2001-12-14t21:59:43.10-05:00", ".inf", "-.inf", ".nan",
        "1" * 5000, "=", "<<",
        "-0", "+1", "0b101", "12e03", ".5", "5.",
    ]  # fmt: skip
    if rng.random() < 0.6:
        return rng.choice(fixed)
    return "".join(rng.choice("abYN019.:_-eExX") for _ in range(rng.randint(1, 9)))


def yaml_texts(rng: random.Random, folder: Path) -> Iterator[Attempt]:
    """A scalar where the study has a text: that text, or a refusal."""
    while True:
        value, field = scalars(rng), rng.choice(["question", "prompt", "name", "heads", "answers"])
        quote = rng.choice(["", "", "", "'", '"'])
        written = f"{quote}{value}{quote}"
        forms = {
            "heads": f"ablate: {{heads: {written}}}",
            "answers": f"answers: [{written}, Other]",
        }
        text = forms.get(field, f"{field}: {written}") + "\n"

        def attempt(text: str = text, field: str = field, value: str = value) -> bool:
            path = folder / "study.yaml"
            path.write_text(text, encoding="utf-8")
            study = Study.make(path)
            if field == "heads":
                return study.ablate.heads == value
            if field == "answers":
                return study.answers == (value, "Other")
            read = getattr(study, field)
            return read == value or (field == "prompt" and read is None and value in ("null", "~"))

        yield attempt


def yaml_forms(rng: random.Random, folder: Path) -> Iterator[Attempt]:
    """Files that are no good study, in their form: each must be refused."""
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n"  # nine to the ninth entries once it is read
    for name, before in zip("bcdefghi", "abcdefgh", strict=True):
        bomb += f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n"
    forms = [
        bomb,
        "question: " + "[" * 3000 + "]" * 3000,
        "question: " + "{a: " * 3000 + "}" * 3000,
        "seed: 1\nseed: 2\n", "ablate: {heads: '1.1', heads: '1.2'}\n",
        "with: a.png\nwith: b.png\n",
        "question: !!python/object/apply:os.system ['true']\n", "question: !!binary aGk=\n",
        "seed: 1e3\n", "seed: 0x10\n", "seed: " + "9" * 6000 + "\n", "rank: {top: 1:30}\n",
        "rank: {top: 3.0}\n", "rank: {top: true}\n", "force: 1\n", "force: 'yes please'\n",
        "pairs: {margin: .inf}\n", "pairs: {margin: .nan}\n", "question: [a]\n",
        "question: {a: b}\n",
        "- a\n- b\n", "just a text\n", "'\n", "\t- x\n", "a: b: c\n", "? [a]\n: b\n", "1: 2\n", "",
        "question: 2\n---\nquestion: 3\n", "&x question: *y\n", "%YAML 9.9\n---\nseed: 1\n",
        "heads: 24.17\n", "unknown: 1\n", "rank: {unknown: 1}\n", "answers: Yes\n",
        "answers: [a]\n", "answers: [a, b, c]\n", "answers: ['', b]\n",
        "question: ''\n", "question: '  '\n",
    ]  # fmt: skip
    while True:
        form = rng.choice(forms)
        raw = form.encode()
        if rng.random() < 0.3:  # a byte that is no text
            at = rng.randint(0, len(raw))
            raw = raw[:at] + rng.choice([b"\x00", b"\xff", b"\x1b", b"\xc3", b"\x07"]) + raw[at:]

        def attempt(raw: bytes = raw) -> bool:
            path = folder / "form.yaml"
            path.write_bytes(raw)
            study = Study.make(path)
            if not study.question.strip():
                study.pair()  # an empty question is refused as the pair is read
            # Bytes inside a comment or between keys may be harmless: then it is the default study.
            return study.model_copy(update={"seed": 0}) == Study()

        yield attempt


def head_texts(rng: random.Random, _: Path) -> Iterator[Attempt]:
    """Texts for --heads, read anew with the grammar as documented."""
    grid, vision = Grid(4, 4), Grid(3, 2, "vision")
    ranking = list(grid)[::-1]
    pieces = ["1.2", "3.3", "v1.1", "0.0-0.3", "layer:2", "layer:1-3", "top:2", "layer:v1", "2.9",
              "9.1", "１.２", "1.٢", "1..2", "1.2+3.3", "-1.2", "L1H2", "1,2", " 1.2 ", "1.2\n",
              "\x001.2", "1.2\x1b[2J", "top:0", "top:999999999999999999999", "layer:3-1",
              "1.3-1.0", "1.0-2.1", "1e0.2", "1_0.2", "+1.2", "0x1.2"]  # fmt: skip

    def meant(text: str) -> list[tuple[str, int, int]] | None:
        found: list[tuple[str, int, int]] = []
        for part in (p.strip(" \t\n\r\f\v") for p in text.split(",")):
            if m := re.fullmatch(r"(v?)([0-9]+)\.([0-9]+)", part):
                found.append((m[1], int(m[2]), int(m[3])))
            elif m := re.fullmatch(r"(v?)([0-9]+)\.([0-9]+)-(v?)([0-9]+)\.([0-9]+)", part):
                if m[1] != m[4] or m[2] != m[5] or int(m[3]) > int(m[6]):
                    return None
                found += [(m[1], int(m[2]), h) for h in range(int(m[3]), int(m[6]) + 1)]
            elif m := re.fullmatch(r"layer:(v?)([0-9]+)(?:-([0-9]+))?", part):
                layers = range(int(m[2]), int(m[3] or m[2]) + 1)
                if not layers or layers[-1] > 99:
                    return None
                heads = 2 if m[1] else 4
                found += [(m[1], layer, h) for layer in layers for h in range(heads)]
            elif m := re.fullmatch(r"top:([0-9]+)", part):
                if not 0 < int(m[1]) <= 16:
                    return None
                found += [("", head.layer, head.head) for head in ranking[: int(m[1])]]
            else:
                return None
        sizes = {"": (4, 4), "v": (3, 2)}
        fits = all(layer < sizes[t][0] and h < sizes[t][1] for t, layer, h in found)
        return found if fits and len(set(found)) == len(found) else None

    while True:
        text = rng.choice([",", ", ", " ,"]).join(
            rng.choice(pieces) for _ in range(rng.randint(1, 3))
        )
        if rng.random() < 0.2:
            at = rng.randint(0, len(text))
            text = text[:at] + rng.choice("0123456789.,:-v +\t９") + text[at:]

        def attempt(text: str = text) -> bool:
            heads = Selection.parse(text).resolve(grid, ranking, vision)
            return [("v" if h.tower == "vision" else "", h.layer, h.head) for h in heads] == meant(
                text
            )

        yield attempt


def small_grammars(rng: random.Random, _: Path) -> Iterator[Attempt]:
    """Regions, edges, layers and claims."""
    ascii_number = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)

    def region(text: str) -> bool:
        read = Region.parse(text)
        if re.sub(r"[\s_]+", "-", text.strip().lower()).replace("centre", "center") in REGIONS:
            return True
        parts = text.split(",")
        return all(ascii_number.fullmatch(part) for part in parts) and read.box == tuple(
            map(float, parts)
        )

    def edge(text: str) -> bool:
        return "-".join(edge_ends(text)) == text

    def layers(text: str) -> bool:
        first, last = layer_span(text)
        return re.fullmatch(r"[0-9]+(-[0-9]+)?", text.strip(" ")) is not None and first <= last

    def claim(text: str) -> bool:
        Claim.parse(text)
        return text.isascii() and "\x00" not in text and not set(text) & set("\x1b\x07")

    good = {
        region: ["top-left", "Top Left", "center", "centre", "0,0,0.5,0.5", "0, 0, 1e-1, .5",
                 "left_half"],
        edge: ["answer-region", "question-other", "all-image", "words-region"],
        layers: ["10-14", "3", "0-0"],
        claim: ["head 24.17 is necessary", "heads 1.2 and 3.4 are redundant",
                "layers 1-3 hold the causal heads", "the model looks at the region",
                "vision layers 2-3 carry the object"],
    }  # fmt: skip
    odd = ["nan", "inf", "１", "²", "\x00", "\x1b[1m", "_", "1e400", "-", ",", " ", "9" * 5000,
           "0x1", "é", "٣", "\n"]  # fmt: skip
    while True:
        read = rng.choice(list(good))
        text = rng.choice(good[read])
        for _ in range(rng.randint(0, 2)):
            at, end = sorted(rng.randint(0, len(text)) for _ in range(2))
            text = text[:at] + rng.choice(odd) + text[end if rng.random() < 0.5 else at :]
        yield lambda read=read, text=text: read(text)


def manifests(rng: random.Random, folder: Path) -> Iterator[Attempt]:
    """Tables of pairs with cells, lines and bytes out of place."""
    for name in ("a.png", "b.png", "c.png"):
        side = 32 + ord(name[0])
        Image.fromarray(np.full((side, side, 3), ord(name[0]), np.uint8)).save(folder / name)
    rows = [
        ["name", "with", "without", "question", "region"],
        ["p1", "a.png", "b.png", "Is it there?", "top-left"],
        ["p2", "c.png", "b.png", "Is it, there?", "0,0,0.5,0.5"],
    ]
    odd = ["", '"', "\x00", "\x1b[1m", ";", "é", "\ufeff", "nowhere.png", "../a.png",
           "/etc/passwd", "a.png", "p1", "１", "0,0,0,0", "\r", "=cmd()", "x" * 70000,
           "https://example.org/a.png", "."]  # fmt: skip
    while True:
        table = [*map(list, rows)]
        for _ in range(rng.randint(0, 2)):
            line = rng.randrange(len(table))
            table[line][rng.randrange(len(table[line]))] = rng.choice(odd)
        if rng.random() < 0.2:
            table[rng.randrange(len(table))].append(rng.choice(odd))
        if rng.random() < 0.1:
            table = table[: rng.randrange(len(table))]
        kind = rng.choice(["csv", "csv", "jsonl"])
        if kind == "csv":
            stream = io.StringIO()
            csv.writer(stream).writerows(table)
            raw = stream.getvalue().encode("utf-8", "surrogatepass")
        else:
            names = table[0] if table else []
            raw = "\n".join(
                json.dumps(dict(zip(names, row, strict=False))) for row in table[1:]
            ).encode()
        if rng.random() < 0.25 and raw:
            at = rng.randrange(len(raw))
            raw = raw[:at] + rng.choice([b"\x00", b"\xff", b'"', b"\n", b"{", b""]) + raw[at + 1 :]

        def attempt(raw: bytes = raw, kind: str = kind) -> bool:
            path = folder / f"manifest.{kind}"
            path.write_bytes(raw)
            entries = Manifest.read(path).entries
            files = [one for entry in entries for one in (entry.with_path, entry.without_path)]
            whole = all(one.is_file() for one in files) and all(e.question.strip() for e in entries)
            return whole and len({entry.name for entry in entries}) == len(entries)

        yield attempt


def pictures(rng: random.Random, folder: Path) -> Iterator[Attempt]:
    """Picture files with flipped, cut and inserted bytes: refused, or what PIL itself decodes."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 24, 3), np.uint8)
    whole = {}
    for kind in ("png", "jpg", "bmp", "gif", "tiff", "webp"):
        stream = io.BytesIO()
        Image.fromarray(noise).save(stream, {"jpg": "jpeg"}.get(kind, kind))
        whole[kind] = stream.getvalue()
    while True:
        kind = rng.choice(list(whole))
        raw = bytearray(whole[kind])
        for _ in range(rng.randint(1, 4)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.4:
            raw = raw[: rng.randrange(len(raw))]

        def attempt(raw: bytes = bytes(raw), kind: str = kind) -> bool:
            path = folder / f"picture.{kind}"
            path.write_bytes(raw)
            read = read_image(path, "--with")
            return read.mode == "RGB" and min(read.size) > 0

        yield attempt


def flags(rng: random.Random, folder: Path) -> Iterator[Attempt]:
    """Command lines that end before a model loads: one line on stderr and exit 2."""
    verbs = ["rank", "ablate", "sweep", "combine", "cut", "path", "trace", "rollout", "verdict",
             "check", "pairs", "claims", "report"]  # fmt: skip
    values = ["--top", "--heads", "--kinds", "--positions", "--region", "--seed", "--limit",
              "--pairs", "--config", "--model", "--with", "--edges", "--n", "--dtype", "--device",
              "--quantize", "--layers", "--answer", "--nonsense", "--question"]  # fmt: skip
    odd = ["", "x", "-1", "nan", "1e9", "１", "\x1b[2J", "a/b/c", "/dev/null", ".", "yes",
           "9" * 400, "24.17,24.17", "é", "zero,zero", "~"]  # fmt: skip
    while True:
        verb = rng.choice(verbs)
        count = rng.randint(1, 2)
        words = [word for _ in range(count) for word in (rng.choice(values), rng.choice(odd))]

        def attempt(verb: str = verb, words: list[str] = words) -> bool:
            from headpatch.core import session

            def reached(*_: object, **__: object) -> None:
                raise InputError("model", "reached", "nothing")  # good input goes on to the model

            real, session.load = session.load, reached
            out, err = io.StringIO(), io.StringIO()
            argv, sys.argv = sys.argv, ["headpatch", verb, *words]
            place = Path.cwd()
            os.chdir(folder)
            try:
                with redirect_stdout(out), redirect_stderr(err):
                    command_line()
            except SystemExit as left:
                code = left.code
            finally:
                os.chdir(place)
                sys.argv, session.load = argv, real
            lines = err.getvalue().splitlines()
            shown = err.getvalue() + out.getvalue()
            if "\x1b[2J" in shown or "Traceback" in shown:
                return False
            if code == 0:  # `pairs`, or a word that asks for nothing wrong
                return True
            if code != 2 or not lines or not lines[-1].startswith("headpatch: "):
                return False
            raise InputError("refused", lines[-1], "")

        yield attempt


KINDS: dict[str, tuple[float, Callable[[random.Random, Path], Iterator[Attempt]]]] = {
    "texts in a study file": (0.2, yaml_texts),
    "forms of a study file": (0.1, yaml_forms),
    "heads": (0.2, head_texts),
    "regions, edges, layers, claims": (0.15, small_grammars),
    "manifests": (0.15, manifests),
    "pictures": (0.12, pictures),
    "command lines": (0.08, flags),
}


def judged(attempt: Attempt) -> tuple[str, str]:
    """How one attempt ended, and what it said."""
    try:
        signal.alarm(LIMIT)
        try:
            return ("read" if attempt() else "silent"), ""
        finally:
            signal.alarm(0)
    except InputError as error:
        text = str(error)
        one_line = "\n" not in text and len(text) < 1500
        return ("refused" if one_line else "crashed"), text
    except HangError:
        return "hung", ""
    except Exception as error:
        return "crashed", f"{type(error).__name__}: {str(error)[:200]}"


ENDINGS = {"refused": 9, "read": 7, "silent": 8, "crashed": 9, "hung": 6}
"""How attempts end, and how wide their columns are."""


def row(name: str, counts: Counter[str]) -> None:
    cells = "".join(f"{counts[ending]:{width}}" for ending, width in ENDINGS.items())
    print(f"{name:34}{counts.total():8}{cells}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int, default=5, help="faults printed in full, of each kind")
    options = parser.parse_args()

    def hang(_: int, __: FrameType | None) -> None:
        raise HangError

    signal.signal(signal.SIGALRM, hang)
    total: Counter[str] = Counter()
    print(f"{'kind':34}{'inputs':>8}" + "".join(f"{e:>{w}}" for e, w in ENDINGS.items()))
    for name, (share, make) in KINDS.items():
        rng, counts, shown = random.Random(f"{options.seed}/{name}"), Counter[str](), 0
        folder = Path(tempfile.mkdtemp())
        attempts = make(rng, folder)
        for _ in range(round(share * options.n)):
            attempt = next(attempts)
            ending, said = judged(attempt)
            counts[ending] += 1
            if ending in ("silent", "crashed", "hung") and shown < options.show:
                shown += 1
                names, values = attempt.__code__.co_varnames, attempt.__defaults__ or ()
                given = dict(zip(names, values, strict=False))
                print(f"  {ending}: {str(given)[:300]} {said[:300]}")
        shutil.rmtree(folder)
        total += counts
        row(name, counts)
    row("all", total)
    sys.exit(bool(total["silent"] + total["crashed"] + total["hung"]))


if __name__ == "__main__":
    main()
