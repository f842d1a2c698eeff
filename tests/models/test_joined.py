"""Pictures of several runs as a model takes them that wants all patches as one."""

from types import SimpleNamespace

import torch
from PIL import Image

from headpatch.models.joined import joined
from headpatch.models.measured import Measured
from headpatch.models.patches import Seen, locate
from headpatch.models.seen import pixel_name

IDS = torch.zeros(2, 5, dtype=torch.long)


class _Processor:
    """One whose settings say nothing; what was found is kept by it."""


def test_strips_of_runs_are_one_strip_run_after_run() -> None:
    strips = torch.arange(2 * 3 * 2 * 8).view(2, 3, 2, 8)
    sizes = torch.tensor([[2, 2], [2, 2]])
    made = joined({"input_ids": IDS, "pixel_values": strips, "target_sizes": sizes})
    assert made["pixel_values"].shape == (1, 3, 2, 16)
    assert torch.equal(made["pixel_values"][0, ..., 8:], strips[1])
    assert torch.equal(made["target_sizes"], sizes)


def test_pooled_patches_count_on_from_run_to_run() -> None:
    pooling = torch.tensor([[0, 1], [2, -1]]).repeat(2, 1)
    given = {
        "input_ids": IDS,
        "pixel_values": torch.zeros(2, 3, 12),
        "image_token_pooling": pooling,
    }
    assert joined(given)["image_token_pooling"].tolist() == [[0, 1], [2, -1], [3, 4], [5, -1]]


def test_what_is_batched_along_the_first_dimension_stays() -> None:
    given = {"input_ids": IDS, "pixel_values": torch.zeros(2, 3, 8, 8)}
    assert joined(given) == given
    alone = {"input_ids": IDS[:1], "pixel_values": torch.zeros(1, 3, 2, 8), "target_sizes": IDS[:1]}
    assert joined(alone) == alone


def test_a_strip_of_several_slices_has_no_places_but_is_not_refused() -> None:
    picture, pixels = Image.new("RGB", (96, 96)), torch.zeros(1, 3, 8, 2 * 16 * 8)
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=8))
    inputs = {"pixel_values": pixels, "target_sizes": torch.tensor([[4, 4], [4, 4]])}
    measured, processor = Measured(lambda _: pixels, picture.size), _Processor()
    found = locate("traced", Seen(picture, processor, config, inputs, 8, measured), processor)
    assert found.unknown is not None and "2 slices" in found.unknown.found


def test_pixels_are_found_by_the_name_that_a_class_gives_them() -> None:
    """Kosmos-2.5's come loose; what has another name still was a KeyError."""
    flat = torch.zeros(1, 16, 2 + 3 * 8 * 8)
    config = SimpleNamespace(vision_config=SimpleNamespace(patch_size=8))
    measured, processor = Measured(lambda _: flat, (96, 96)), _Processor()
    picture = Image.new("RGB", (96, 96))
    seen = Seen(picture, processor, config, {"flattened_patches": flat}, 4, measured)
    found = locate("traced", seen, processor)
    assert found.unknown is not None and "loose patches" in found.unknown.found
    assert pixel_name({"pixel_values_images": flat}) == "pixel_values_images"
    assert pixel_name({"pixel_values_images": flat, "pixel_values": flat}) == "pixel_values"
