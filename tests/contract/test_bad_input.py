"""Every flag that is an option refuses what its type does not hold, in one line that names it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import annotated_types as limits
import pytest
from pydantic.fields import FieldInfo

from headpatch.cli.options import COMMON
from headpatch.core.question import Verb
from headpatch.core.study.study import Study
from headpatch.questions import RANK, VERBS
from tests.command import refused_early

HEADS = ("24-17", "L24H17", "1.1,0.1,1.1", "1.1,", "", "top:0", "v0", "２４.１７")
NO_TEXT = ("a\0b", "a\udcffb")
TEXTS = {
    "--heads": HEADS,
    "--layers": ("14-10", "x", "", "１0-14"),
    "--sets": ("nowhere.txt", *NO_TEXT),
    "--by": ("effect", "zap", "", "nowhere.csv", *NO_TEXT),
    "--positions": ("end", ""),
    "--vision-positions": ("answer", ""),
    "--from": ("nowhere", "answer,"),
    "--to": ("nowhere", "answer,"),
    "--question": ("", " ", *NO_TEXT),
    "--region": ("nowhere", "", "0,0,1", "a,b,c,d", "0,0,1.5,1", "nan,0,1,1", "０,0,1,1",
                 "0.5,0,0.5,1", "0,0.9,1,0.1"),
}  # fmt: skip
"""Texts that follow a grammar of their own, by their flag."""
BESIDE = {
    "--vision-positions": ["--heads", "v0.0"],
    "--from": ["--to", "region"],
    "--to": ["--from", "answer"],
    "--limit": ["--pairs", "somewhere"],
}


def _held(annotation: Any, limits_so_far: Any = ()) -> tuple[Any, list[Any]]:
    """Return what an option holds where it is not None, and what limits it."""
    kept = list(limits_so_far)
    if get_origin(annotation) is Annotated:
        annotation, *more = get_args(annotation)
        for extra in more:
            kept += extra.metadata if isinstance(extra, FieldInfo) else [extra]
        return _held(annotation, kept)
    if type(None) in get_args(annotation):
        (annotation,) = (kind for kind in get_args(annotation) if kind is not type(None))
        return _held(annotation, kept)
    return annotation, kept


def _beyond(limit: object) -> Iterator[tuple[str, str]]:
    """Yield a value beyond a limit, and how the limit is said."""
    if isinstance(limit, limits.Ge):
        yield f"{limit.ge - 1}", f"at least {limit.ge}"  # type: ignore[operator]
    elif isinstance(limit, limits.Le):
        yield f"{limit.le + 1}", f"at most {limit.le}"  # type: ignore[operator]
    elif isinstance(limit, limits.Gt):
        yield f"{limit.gt}", f"greater than {limit.gt}"
    elif isinstance(limit, limits.Lt):
        yield f"{limit.lt}", f"less than {limit.lt}"


def wrong(flag: str, field: FieldInfo) -> Iterator[tuple[str, str]]:
    """Yield values that an option refuses, as they are typed, and a word of what it expects."""
    kind, metadata = _held(field.annotation, field.metadata)
    if kind in (int, float):
        for limit in metadata:
            yield from _beyond(limit)
        texts = ("many", "", "２", *(("2.5", "1_0", "9" * 5000) if kind is int else ()))
        yield from ((text, "a whole number" if kind is int else "a number") for text in texts)
        yield from ((text, "a finite number") for text in ("nan", "inf") if kind is float)
    elif get_origin(kind) is Literal:
        yield from ((text, repr(get_args(kind)[-1])) for text in ("", "zap", f"{field.default}x"))
    elif get_origin(kind) is tuple and field.default is None:  # of numbers
        yield from ((text, "") for text in ("", "zap", "1,zap", "-1"))
    elif get_origin(kind) is tuple:
        known = get_args(get_args(kind)[0])
        first = (*field.default, *known)[0]
        for text in ("", "zap", f"{first},", f"{first},zap"):
            yield text, repr(known[-1]) if known else "from-to"
        if not known:
            yield f"{first},{first}", "once"
    elif kind is str:
        yield from ((text, "") for text in TEXTS.get(flag, NO_TEXT))


def _of(verb: Verb) -> Iterator[tuple[str, str, str]]:
    fields = {} if verb.options is None else verb.options.model_fields
    for name, field in fields.items():
        if name not in verb.hidden:
            flag = f"--{name.replace('_', '-')}"
            yield from ((flag, *words) for words in wrong(flag, field))
    for extra in verb.flags:
        yield from ((extra.flag, value, "") for value in TEXTS[extra.flag])


def _common() -> Iterator[tuple[str, str, str]]:
    for common in COMMON.values():
        if common.key in (None, "with", "without", "answers"):
            continue
        section, _, key = common.key.rpartition(".")
        model = Study.model_fields[section].annotation if section else Study
        flag = f"--{'pairs' if key == 'manifest' else key.replace('_', '-')}"
        yield from ((flag, *words) for words in wrong(flag, model.model_fields[key]))


def _cases() -> Iterator[Any]:
    cases = [(verb, *words) for verb in VERBS for words in _of(verb)]
    for verb, flag, value, expected in [*cases, *((RANK, *words) for words in _common())]:
        name = f"{verb.name} {flag} {value[:12]!a}"
        yield pytest.param(verb, flag, value, expected, id=name)


@pytest.mark.parametrize(("verb", "flag", "value", "expected"), list(_cases()))
def test_a_wrong_value_is_refused_before_a_model_loads(
    verb: Verb,
    flag: str,
    value: str,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = ["--out", tmp_path / "new"] if verb.files and flag != "--out" else []
    line = refused_early(verb.name, *out, *BESIDE.get(flag, []), flag, value)
    assert flag in line
    assert expected in line
    assert "; expected " in line or "embedded null byte" in line
    assert len(line) < 500
    assert not list(tmp_path.iterdir())
