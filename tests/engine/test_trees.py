"""Trees of tensors in one piece of memory."""

import gc
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from headpatch.engine import trees
from headpatch.engine.trees import Packed, packed, tensors_in


@dataclass(frozen=True, eq=False)
class Leaf:
    numbers: Tensor
    name: str


def tree(step: int) -> dict[str, object]:
    rng = torch.Generator().manual_seed(step)
    shared = torch.randn(3, 5, generator=rng)
    return {
        "twice": (shared, shared),
        "turned": torch.randn(4, 6, generator=rng).t(),
        "low": [torch.randn(2, 1, 7, generator=rng).to(torch.bfloat16)],
        "mask": torch.rand(9, generator=rng) > 0.5,
        "none": torch.zeros(2, 0, 3),
        "one": torch.tensor(step),
        "leaf": Leaf(torch.arange(step, step + 4), "a"),
    }


def pack(step: int) -> Packed:
    made = packed(tree(step))
    assert made is not None
    return made


def test_a_tree_comes_out_as_it_went_in() -> None:
    found, expected = pack(1).tree(), tree(1)
    assert found["leaf"].name == "a" and found["twice"][0] is found["twice"][1]
    ours, theirs = list(tensors_in(found)), list(tensors_in(expected))
    for one, wanted in zip(ours, theirs, strict=True):
        assert torch.equal(one, wanted) and (one.shape, one.dtype) == (wanted.shape, wanted.dtype)
        assert one.is_contiguous()
    assert len({one.untyped_storage().data_ptr() for one in ours}) == 1


def test_every_tensor_begins_where_the_allocator_would_put_it() -> None:
    made = pack(1)
    start = made.memory.data_ptr()
    there = [one for one in tensors_in(made.tree()) if one.numel()]  # others are nowhere
    assert all((one.data_ptr() - start) % 512 == 0 for one in there)


def test_trees_of_one_form_are_told_apart_by_their_numbers_alone() -> None:
    one, other = pack(1), pack(2)
    assert one.layout is other.layout
    other.memory.copy_(one.memory)
    assert all(map(torch.equal, tensors_in(other.tree()), tensors_in(tree(1))))


def test_a_layout_goes_with_the_last_tree_of_its_form() -> None:
    made = packed({"numbers": torch.zeros(17, 3)})
    assert made is not None
    first = id(made.layout)
    del made
    gc.collect()
    assert first not in map(id, trees._layouts.values())


@pytest.mark.parametrize("stranger", [object(), torch.zeros(2, device="meta")])
def test_what_does_not_lie_together_is_left_as_it_is(stranger: object) -> None:
    assert packed([torch.zeros(2), stranger]) is None
