"""A name for a model's weights, worked out from its files, without loading them."""

import hashlib
import json
from pathlib import Path

DEMO = Path(__file__).parent / "demo"
"""The bundled model's folder."""
_HASHED = 1 << 30  # bytes of weights that are hashed whole


def weights_in(folder: Path) -> str:
    """Name the weights in a folder by a SHA-256.

    Weight files up to 1 GiB are hashed whole, larger ones by their headers (which list every
    tensor's name, shape and place) and sizes, since reading 14 GB would take longer than a run.
    """
    files = sorted(folder.glob("*.safetensors"))
    whole = sum(file.stat().st_size for file in files) <= _HASHED
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            if whole:
                while block := stream.read(1 << 22):
                    digest.update(block)
            else:
                size = int.from_bytes(stream.read(8), "little")
                digest.update(stream.read(size) + json.dumps(file.stat().st_size).encode())
    return f"{'sha256' if whole else 'sha256-of-headers'}:{digest.hexdigest()}"


def weights_of(model: str) -> str | None:
    """Name the weights of ``demo`` or of a model's folder; None of one that is on the hub."""
    folder = DEMO if model == "demo" else Path(model)
    return weights_in(folder) if any(folder.glob("*.safetensors")) else None
