"""What a training run leaves on disk: its log, its checkpoint, the finished model folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = "checkpoint.pt"
PIECE_BYTES = 15_000_000


def log(folder: Path, line: str) -> None:
    """One line to the terminal and to train.log."""
    print(line, flush=True)
    with open(folder / "train.log", "a", encoding="utf-8") as file:
        file.write(line + "\n")


def save(state: Mapping[str, Any], path: Path) -> None:
    """Write under another name, then rename: a kill leaves the old file or the new one, whole."""
    temporary = path.with_name(path.name + ".part")
    torch.save(dict(state), temporary)
    os.replace(temporary, path)


def export(model: Any, processor: Any, out: Path) -> None:
    """Write the model folder, weights rounded to float16; each file appears whole."""
    from transformers import GenerationConfig

    staging = out / "export.part"
    shutil.rmtree(staging, ignore_errors=True)
    tokenizer = processor.tokenizer
    model = model.half()
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=32,
    )
    model.save_pretrained(staging, max_shard_size="1GB")
    processor.save_pretrained(staging)
    for file in staging.iterdir():
        os.replace(file, out / file.name)
    staging.rmdir()
    weights = out / "model.safetensors"
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    (out / "model.safetensors.sha256").write_text(
        f"{digest}  model.safetensors\n", encoding="utf-8"
    )
    log(out, f"wrote {weights}: {weights.stat().st_size / 1e6:.1f} MB, sha256 {digest}")


def write_pieces(out: Path, pieces: Path) -> None:
    """The weights cut in pieces and the small files in one archive, where file size is limited."""
    pieces.mkdir(parents=True, exist_ok=True)
    data = (out / "model.safetensors").read_bytes()
    for number, start in enumerate(range(0, len(data), PIECE_BYTES)):
        (pieces / f"model.safetensors.{number:02d}").write_bytes(data[start : start + PIECE_BYTES])
    with tarfile.open(pieces / "files.tar.gz", "w:gz") as archive:
        for file in sorted(out.iterdir()):
            large = file.name.startswith(CHECKPOINT) or file.name == "model.safetensors"
            if file.is_file() and not large:
                archive.add(file, arcname=file.name)
    print(
        f"to join: cat {pieces}/model.safetensors.?? > DIR/model.safetensors && "
        f"tar xzf {pieces}/files.tar.gz -C DIR && cd DIR && sha256sum -c model.safetensors.sha256",
        flush=True,
    )
