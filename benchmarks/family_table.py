"""What headpatch can and cannot control in each family of models, measured on tiny ones.

Real classes with random weights, float32, against plain transformers (eager attention, hooks on
the output projections). Each number is the largest disagreement found, in logits or, for rows, in
shares of attention.

    python benchmarks/family_table.py            # about 25 s on one core
"""

import os
import sys
import warnings
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parents[1]))  # the tiny models live with the tests
warnings.filterwarnings("ignore")

import torch  # noqa: E402
import transformers  # noqa: E402

from headpatch.models.tower_patches import tower_patches  # noqa: E402
from headpatch.models.vlm import VLM  # noqa: E402
from tests.families.builders import BUILDERS, WIDE, build, prompt_of  # noqa: E402
from tests.families.measure import SCOPES, Measured, measure  # noqa: E402
from tests.tiny import image_pair  # noqa: E402

TITLES = {
    "llava": "LLaVA", "llava (siglip)": "LLaVA on SigLIP", "llava (pixtral)": "LLaVA on Pixtral ¹",
    "vipllava": "VipLLaVA", "llava_next": "LLaVA-NeXT", "llava_onevision": "LLaVA-OneVision ¹",
    "qwen2_vl": "Qwen2-VL ¹", "qwen2_5_vl": "Qwen2.5-VL ¹", "qwen3_vl": "Qwen3-VL ¹",
    "idefics3": "Idefics3", "smolvlm": "SmolVLM ¹ ²", "paligemma": "PaliGemma",
    "paligemma (2)": "PaliGemma 2", "gemma3": "Gemma 3", "internvl": "InternVL ¹",
    "mistral3": "Mistral 3 ¹", "mllama": "Mllama",
}  # fmt: skip
REGIONS = {
    "crop": "one view", "anyres": "whole + tiles", "idefics": "tiles + whole",
    "internvl": "tiles + whole", "qwen": "own shape, merged", "pixtral": "own shape",
    "none": "no: cross-attention",
}  # fmt: skip
NOTES = """\
Numbers: the largest disagreement with plain transformers. ¹ Its processor needs torchvision;
² and num2words. *z edits*: heads of the language model and of the vision tower, every scope,
zeroed and resampled, both directions. *rows*: the answer position's attention to the prompt;
Mllama's cross-attention layers have none. *regions*: placeless tokens end lines of patches and
count for no region. *vision maps*: the attention that tokens of the vision tower receive, drawn
where each of them stands for a place. *fast*: the widening pass over every head, and the resumed
sweep of the vision tower, against plain passes. *none*: Mllama attends to the image across, so its
prompt has no image tokens to change. A fast path that is not exact for a model is refused, and a
forward pass for each head gives the numbers (*plain*). Refused, never approximated: Gemma 3's pan
and scan, cutting edges in towers that see a picture in parts, attention with sinks."""


def cell(value: float | None) -> str:
    return "no" if value is None else f"{value:.0e}"


def row(name: str, vlm: VLM, measured: Measured, placed: int, image: int, drawn: bool) -> str:
    rows = cell(measured.rows)
    if measured.without_rows:
        layers = vlm.lm.grid.layers
        rows += f" ({layers - len(measured.without_rows)} of {layers} layers)"
    regions = REGIONS[vlm.family.layout]
    if 0 < placed < image:
        regions += f" ({image - placed} of {image} tokens placeless)"
    edits = max(one.worst for scope, one in measured.edits.items() if scope != "vision")
    vision = measured.edits.get("vision")
    fast = []
    for scope in SCOPES:
        found = measured.fast.get(scope)
        fast.append("none" if found is None else cell(found.worst) if found.exact else "plain")
    cells = [TITLES[name], cell(edits), rows, regions, cell(vision.worst if vision else None)]
    cells += [cell(measured.tower_rows if drawn else None), *fast]
    cells.append(cell(measured.vision_fast))
    return f"| {' | '.join(cells)} |"


def table() -> str:
    """Build every family, measure it, and return the table in Markdown."""
    heads = ["family", "LM z edits", "rows", "regions", "vision z edits", "vision maps"]
    heads += [f"fast: {scope}" for scope in (*SCOPES, "vision")]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name in BUILDERS:
        vlm = build(name)
        prompt = prompt_of(vlm)
        drawn = not tower_patches(vlm, image_pair(WIDE)[0], prompt).unknown
        placed, image = len(prompt.image_positions), len(prompt.spans.image)
        lines.append(row(name, vlm, measure(vlm, prompt), placed, image, drawn))
    return "\n".join([*lines, "", NOTES])


def main() -> None:
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    print(table())
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(f"\n{versions}, CPU, float32, {torch.get_num_threads()} thread", file=sys.stderr)


if __name__ == "__main__":
    main()
