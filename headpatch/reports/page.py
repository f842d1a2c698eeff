"""The page: every section that the results allow, in one file that needs nothing else."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from headpatch import __version__
from headpatch.core.output.folder import LeftOut, Results, find
from headpatch.core.question import verbs
from headpatch.errors import InputError
from headpatch.present.section import Section
from headpatch.reports import derived, first, how, maps
from headpatch.reports.pictures import packed

_BEFORE = ("ablate", "combine", "rank", "sweep")
_BEHIND = ("path", "cut", "trace", "rollout")
_PLACED = ("verdict", *_BEFORE, *_BEHIND, "claims")
_UNPLACED = [verb.name for verb in verbs() if verb.files and verb.name not in _PLACED]
SECTIONS: tuple[Callable[[Results], Section | None], ...] = (
    first.section,
    derived.section("verdict"),
    maps.section,
    maps.scatter,
    maps.ranking,
    *map(derived.section, _BEFORE),
    maps.tower,
    *map(derived.section, (*_BEHIND, *_UNPLACED, "claims")),
    how.noise,
    derived.gate,
    how.section,
)
"""In the order of the page; questions without a place of their own come behind the others."""

_SCRIPTS = ("page", "figures", "heads", "overlay", "table")
_STYLES = ("page", "parts", "print")


@dataclass(frozen=True)
class Written:
    """A report that was written."""

    path: Path
    size: int  # in bytes
    sections: tuple[str, ...]
    folders: tuple[Path, ...]  # whose results it shows
    left_out: tuple[LeftOut, ...]
    valid: bool  # no run says that its study was forced
    changed: tuple[str, ...] = ()  # files that are no longer as their run wrote them


def write(root: Path, path: Path) -> Written:
    """Write the report of a folder's results into a file, whole or not at all."""
    from headpatch.core.output.staging import check_folder, staged

    if path.is_dir():
        raise InputError("--out", f"{path} is a folder", "a file to write", "Add a file's name.")
    results = find(root)
    check_folder(path.parent)
    with results.reading():
        made = [made for make in SECTIONS if (made := make(results)) is not None]
    page = _render(made)
    with staged(path.parent, "report") as stage:
        (stage / path.name).write_text(page, encoding="utf-8")
    sections = tuple(one.name for one in made)
    folders = tuple(dict.fromkeys(part.folder for part in results.parts))
    size, changed = path.stat().st_size, tuple(results.changed)
    return Written(path, size, sections, folders, results.left_out, results.valid, changed)


def _render(sections: list[Section]) -> str:
    environment = Environment(loader=PackageLoader("headpatch.reports"), autoescape=True,
                              undefined=StrictUndefined, trim_blocks=True,
                              lstrip_blocks=True)  # fmt: skip
    data: dict[str, Any] = {}
    for one in sections:
        data |= one.data
    rows = data.pop("overlay-rows", None)
    drawn: Mapping[str, Any] = {
        name: asdict(figure) for one in sections for name, figure in one.figures.items()
    }
    interactive = drawn or "heads" in data
    template = environment.get_template("page.html")
    return template.render(
        sections=sections,
        data={**data, "figures": drawn},
        rows=rows,
        library=_library() if interactive else None,
        style=_texts("css", _STYLES),
        script=_texts("js", _SCRIPTS),
        version=__version__,
    )


@cache
def _library() -> str:
    """Plotly's script, compressed; see `headpatch.reports`."""
    from plotly.offline import get_plotlyjs

    return packed(get_plotlyjs().encode())


def _texts(kind: str, names: tuple[str, ...]) -> str:
    folder = resources.files("headpatch.reports") / "templates" / kind
    return "\n".join((folder / f"{name}.{kind}").read_text(encoding="utf-8") for name in names)
