"""What is looked into: loading a model, and finding its tokens, patches and answers.

A package beside transformers that does not fit breaks all of it, so whether it loads is seen first.
"""

import re
import sys
from collections.abc import Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from traceback import walk_tb

from headpatch.errors import InputError
from headpatch.models.families import FAMILIES

_PASSED_THROUGH = {"headpatch", "transformers", "torch", "importlib", "_frozen_importlib"}


def check_transformers() -> None:
    """Import what headpatch uses of transformers; name in an `InputError` what breaks it."""
    try:
        from transformers import (  # noqa: F401
            AttentionInterface,
            AutoModelForImageTextToText,
            AutoProcessor,
        )
    except Exception as error:  # whatever the package raises
        root = _root(error)
        package = next(iter(_packages(root)), "")
        said = shorten(str(root), 160, placeholder=" …") or type(root).__name__
        if not package:
            raise
        raise (_torchvision(said) if package == "torchvision" else _other(package, said)) from error


def _other(package: str, said: str) -> InputError:
    beside = f"transformers {_version('transformers')}"
    found = f"{package} {_version(package)} does not load beside {beside} ({said})"
    hint = f"pip install --upgrade {package}, or pip uninstall {package}."
    return InputError(package, found, "a release that fits, or none", hint)


def _torchvision(said: str) -> InputError:
    needed = [name for name, family in FAMILIES.items() if "torchvision" in family.needs]
    required = metadata.requires("torchvision") or ()
    wanted = next((one for one in required if re.match(r"torch\b", one)), "torch")
    return InputError(
        "torchvision",
        f"torchvision {_built()} does not load beside torch {_version('torch')} ({said})",
        f"the torch that it was made for ({re.sub('[() ]', '', wanted)}), of the same build (CPU "
        "or CUDA)",
        "Install both together, from one index: pip install --force-reinstall torch torchvision; "
        f"or pip uninstall torchvision: only {', '.join(needed)} need it.",
    )


def _built() -> str:
    """Return torchvision's version with its build, from its own files: it does not load."""
    spec = find_spec("torchvision")
    for place in (spec and spec.submodule_search_locations) or ():
        file = Path(place) / "version.py"
        text = file.read_text("utf-8") if file.is_file() else ""
        if found := re.search(r"__version__ = '(.+)'", text):
            return found[1]
    return _version("torchvision")


def _root(error: BaseException) -> BaseException:
    while (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error


def _packages(error: BaseException) -> Iterator[str]:
    """Name the packages in whose code an error arose, from the outermost."""
    for frame, _ in walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package and package not in _PASSED_THROUGH:
            yield package


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(of unknown version)"


if sys.flags.optimize > 1:  # before transformers is imported and complains at length
    raise InputError("python -OO", "it drops docstrings, which transformers reads", "python -O")
check_transformers()
