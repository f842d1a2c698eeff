"""Write headpatch/core/study/keywords.py: the options of each call of Python, for editors.

A call's options are those of its section of the study that are no parameters of its own.
"""

import inspect
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

import headpatch as hp
from headpatch.core.study.figure_options import FigureOptions
from headpatch.core.study.options import DrawOptions, PairsOptions, VisionOptions
from headpatch.core.study.study import Study
from headpatch.questions import VERBS
from headpatch.questions.rank import RankOptions

MODULE = Path(__file__).resolve().parents[1] / "headpatch" / "core" / "study" / "keywords.py"
_HEAD = '''"""Options that each call takes by name, as types; ``make format`` writes this anew."""

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")
Several: TypeAlias = T | Sequence[T]
"""One, or several."""
'''
SECTIONS: dict[str, type[BaseModel]] = {
    **{verb.name: verb.options for verb in VERBS if verb.options is not None},
    "open_pairs": PairsOptions,
    "draw_pairs": DrawOptions,
    "corrupt": Study,
    "compare": FigureOptions,
}
_ALSO: dict[str, dict[str, type[BaseModel]]] = {
    "sweep": {"positions": VisionOptions},
    "verdict": {"by": RankOptions},
    "draw_pairs": {"seed": Study},
}
_ONLY = {"corrupt": ("question", "region", "seed")}
_NOT = {"open_pairs": ("manifest",)}  # it is what `pairs` names


def written() -> str:
    """Return the module's text."""
    return "\n".join((_HEAD, *(_keywords(name, model) for name, model in SECTIONS.items())))


def _keywords(call: str, model: type[BaseModel]) -> str:
    code = inspect.unwrap(getattr(hp, call)).__code__
    own = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    names = _ONLY.get(call) or tuple(model.model_fields)
    names = tuple(name for name in names if name not in own and name not in _NOT.get(call, ()))
    also = _ALSO.get(call, {})
    lines = []
    for name in dict.fromkeys((*names, *also)):
        fields = [one.model_fields[name] for one in (model, also.get(name)) if one and
                  name in one.model_fields]  # fmt: skip
        told = dict.fromkeys(text for field in fields for text in _texts(field.annotation))
        if several := [one for one in told if one.startswith("Several[")]:
            told = dict.fromkeys(one for one in told if f"Several[{one}]" not in several)
        lines.append(f"    {name}: {' | '.join(_sorted(told))}")
    title = "".join(part.title() for part in call.split("_"))
    head = f'\nclass {title}Keywords(TypedDict, total=False):\n    """Of `headpatch.{call}`."""\n'
    return "\n".join((head, *lines, ""))


def _texts(annotation: Any) -> list[str]:
    """Return what a value of this type may be, as Python writes it."""
    kind, held = get_origin(annotation), get_args(annotation)
    if kind is Annotated:
        return _texts(held[0])
    if kind in (Union, UnionType):
        return [text for one in held for text in _texts(one)]
    if kind is tuple:
        return [f"Several[{' | '.join(_texts(held[0]))}]"]
    if kind is Literal:
        return [f"Literal[{', '.join(map(_quoted, held))}]"]
    return ["None" if annotation is NoneType else annotation.__name__]


def _quoted(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _sorted(texts: Any) -> list[str]:
    return sorted(texts, key=lambda text: text == "None")


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(MODULE.read_text(encoding="utf-8") != written())
    MODULE.write_text(written(), encoding="utf-8")
