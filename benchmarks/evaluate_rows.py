"""What asking rows with heads changed costs: `headpatch.evaluate` against a pass a set and row.

CPU time (user and system) of both, in turn, on the bundled model: rows are asked with nothing
changed, with one set of heads zeroed and with random sets of the same layers. The naive loop runs
every set plainly, one hook a layer, and must give the same answers, row by row.
"""

import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

import headpatch as hp
from headpatch.core.ranking import random_sets
from headpatch.heads import HeadSet, Selection
from headpatch.models.prompt import encode
from headpatch.pairs.pair import read_image


@torch.no_grad()
def naive(vlm: Any, rows: list[dict[str, Any]], sets: list[HeadSet]) -> list[list[int]]:
    """Return the likeliest first token of each row, untouched and with each set zeroed."""
    width, found = vlm.lm.head_dim, []
    for row in rows:
        prompt, tokens = encode(vlm, [read_image(row["image"], "image")], row["question"]), []
        for heads in [None, *sets]:
            handles = []
            for head in heads or ():

                def zero(_: nn.Module, args: Any, at: int = head.head * width) -> Any:
                    z = args[0].clone()
                    z[:, -1, at : at + width] = 0
                    return (z, *args[1:])

                handles.append(vlm.lm.outputs[head.layer].register_forward_pre_hook(zero))
            output = vlm.model(**prompt.inputs, use_cache=False, logits_to_keep=1)
            tokens.append(int(output.logits[0, -1].argmax()))
            for handle in handles:
                handle.remove()
        found.append(tokens)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4, help="each gives two rows")
    parser.add_argument("--heads", default="20.18,21.14,21.16,21.25,23.9")
    parser.add_argument("--controls", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    vlm = hp.load("demo", device="cpu", dtype="float32")
    members = HeadSet(Selection.parse(asked.heads).resolve(vlm.lm.grid))
    sets = [members, *random_sets(members, asked.controls, 0, vlm.lm.grid)]
    with TemporaryDirectory() as folder:
        entries = hp.draw_pairs(asked.pairs, Path(folder)).entries
        rows = [
            {"image": str(path), "question": one.question, "answer": answer}
            for one in entries
            for path, answer in ((one.with_path, "Yes"), (one.without_path, "No"))
        ]
        start = time.process_time()
        plain = naive(vlm, rows, sets)
        middle = time.process_time()
        found = hp.evaluate(rows, asked.heads, vlm=vlm, controls=asked.controls, on_progress=False)
        end = time.process_time()
    tokens = vlm.processor.tokenizer
    said = [[tokens.decode([ids[at]]).strip() for ids in plain] for at in (0, 1)]
    assert found.rows["said"].tolist() == [*said[0], *said[1]]
    slow, fast = middle - start, end - middle
    print(
        f"{len(rows)} rows, {len(sets)} sets, {asked.threads} thread(s), torch {torch.__version__}"
    )
    print(f"a pass a set: {slow:.1f} s CPU; evaluate: {fast:.1f} s CPU, {slow / fast:.1f} × less")


if __name__ == "__main__":
    main()
