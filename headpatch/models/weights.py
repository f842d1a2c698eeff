"""A model's weight files, read without loading them: which they are, what they hold, their name."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

from headpatch.errors import InputError
from headpatch.pairs.pair import refuse_pointer

DEMO = Path(__file__).parent / "demo"  # the bundled model's folder
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DESCRIBING = (".json", ".jinja", ".model", ".txt")  # endings of the files that describe a model
_HASHED = 1 << 30  # bytes of weights that are hashed whole
_LONGEST = 100 << 20  # bytes of a header that safetensors itself would read


def weight_files(
    folder: Path, config: Mapping[str, Any], to_come: Collection[str] = ()
) -> list[str]:
    """Name the weight files that transformers reads in a folder, in the order of their names.

    Other ``*.safetensors`` may lie beside them: the weights in the form of another program, or an
    adapter's. `config` is ``config.json``, which may name the file; `to_come` are not there yet.
    """
    named = config.get("transformers_weights")
    candidates = (named,) if isinstance(named, str) else (WHOLE, INDEX)
    there = (one for one in candidates if one in to_come or (folder / one).exists())
    if (first := next(there, None)) is None:
        return []
    if not first.endswith(".index.json"):
        return [first]
    refuse_pointer("--model", folder / first)
    try:
        parts = json.loads((folder / first).read_text("utf-8"))["weight_map"].values()
        return sorted({str(part) for part in parts})
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        expected = "a `weight_map` of tensors and files"
        raise InputError("--model", f"{folder / first} lists no files", expected) from None


def weights_in(folder: Path, files: list[str]) -> str:
    """Name weight files of a folder by a SHA-256.

    Up to 1 GiB they are hashed whole, else by their headers (which list every tensor's name, shape
    and place) and sizes, since reading 14 GB would take longer than a run.
    """
    paths = [folder / name for name in files]
    whole = sum(path.stat().st_size for path in paths) <= _HASHED
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            if whole:
                while block := stream.read(1 << 22):
                    digest.update(block)
            else:
                size = int.from_bytes(stream.read(8), "little")
                digest.update(stream.read(size) + json.dumps(path.stat().st_size).encode())
    return f"{'sha256' if whole else 'sha256-of-headers'}:{digest.hexdigest()}"


def weights_of(model: str) -> str | None:
    """Name the weights of ``demo`` or of a model's folder; None of one that is on the hub."""
    folder = DEMO if model == "demo" else Path(model)
    try:
        files = weight_files(folder, json.loads((folder / "config.json").read_text("utf-8")))
    except (OSError, ValueError, AttributeError, RecursionError):  # of no model's folder
        return None
    there = files and all((folder / name).is_file() for name in files)
    return weights_in(folder, files) if there else None


def settings_in(folder: Path) -> str:
    """Name by a SHA-256 what describes a model: its config, processor, tokenizer, chat template.

    The same weights are another model with another config.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in DESCRIBING and path.is_file():
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            digest.update(path.read_bytes())
    return f"sha256:{digest.hexdigest()}"


def held(paths: list[Path]) -> dict[str, int]:
    """Read which tensors lie in weight files, and how many numbers each holds."""
    return {name: count for path in paths for name, count in _header(path)}


def _header(path: Path) -> Iterator[tuple[str, int]]:
    if not path.is_file():
        hint = "Give a folder that holds them all: --model PATH."
        raise InputError("--model", f"{path} is not there", "every file of the weights", hint)
    refuse_pointer("--model", path)
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        text = stream.read(length) if length <= min(size, _LONGEST) else b""
    try:
        listed = json.loads(text)
        tensors = {
            str(name): (prod(map(int, one["shape"])), one["dtype"], one["data_offsets"])
            for name, one in listed.items()
            if name != "__metadata__"
        }
        end = max((int(offsets[1]) for *_, offsets in tensors.values()), default=0)
    except (ValueError, KeyError, IndexError, AttributeError, TypeError, RecursionError):
        found = f"{path} does not load: its header is not one of safetensors"
        raise InputError("--model", found, "a whole file of weights") from None
    if size < 8 + length + end:
        found = f"{path} is cut: it has {size:,} bytes and lists {8 + length + end:,}"
        raise InputError("--model", found, "the whole file", "Download or copy it again.")
    yield from ((name, count) for name, (count, *_) in tensors.items())
