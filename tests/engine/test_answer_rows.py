"""Rows finished together against rows computed one by one."""

import pytest
import torch
from torch import Tensor, nn

from headpatch.engine.attention import attention_rows
from headpatch.engine.taps import AnswerRows
from headpatch.errors import RunError

TOKENS, ANSWER = 7, 5


def masks(kind: str) -> Tensor | None:
    seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
    seen[1, ..., 0] = False  # padding
    if kind == "boolean":
        return seen
    return None if kind == "none" else torch.zeros(2, 1, TOKENS, TOKENS).masked_fill(~seen, -1e9)


def drawn(keys: int, rng: torch.Generator, transposed: bool) -> tuple[Tensor, Tensor]:
    """A query and a key of two runs, grouped; as a model lays them out if transposed."""
    query, key = (
        torch.randn(2, *((count, heads) if transposed else (heads, count)), 8, generator=rng)
        for heads, count in ((4, TOKENS), (2, keys))
    )
    return (query.transpose(1, 2), key.transpose(1, 2)) if transposed else (query, key)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("kind", ["none", "boolean", "additive"])
def test_layers_of_several_ways_come_out_in_their_order(kind: str, transposed: bool) -> None:
    module, rng = nn.Module(), torch.Generator().manual_seed(0)
    mask = masks(kind)
    ways = [{}, {"scaling": 0.3}, {}, {"softcap": 2.0}, {"scaling": 0.3}]
    kept, wanted = AnswerRows(ANSWER, len(ways)), []
    for layer, options in enumerate(ways):
        query, key = drawn(TOKENS, rng, transposed)
        kept.record(layer, module, query, key, mask, options)
        one = attention_rows(module, query, key, mask, torch.tensor([ANSWER]), **options)
        wanted.append(one[:, :, 0])
    found = kept.stacked(TOKENS)
    torch.testing.assert_close(found, torch.stack(wanted, 1), atol=1e-6, rtol=0)
    assert not found[..., ANSWER + 1 :].any()


def test_a_layer_that_attends_to_something_else_has_no_rows() -> None:
    rng, kept = torch.Generator().manual_seed(0), AnswerRows(ANSWER, 3)
    crossing = nn.Module()
    crossing.is_causal = False  # type: ignore[assignment]
    for layer, keys in enumerate((TOKENS, 3, TOKENS)):
        module = crossing if keys == 3 else nn.Module()
        kept.record(layer, module, *drawn(keys, rng, transposed=True), None, {})
    found = kept.stacked(TOKENS)
    assert found[:, 1].isnan().all()
    torch.testing.assert_close(found[:, ::2].sum(-1), torch.ones(2, 2, 4))


def test_layers_of_one_way_are_handed_out_as_they_lie() -> None:
    rng, kept = torch.Generator().manual_seed(0), AnswerRows(ANSWER, 4)
    for layer in range(4):
        kept.record(layer, nn.Module(), *drawn(TOKENS, rng, transposed=True), None, {})
    assert kept.stacked(TOKENS).shape == (2, 4, 4, TOKENS)


def test_a_layer_that_never_ran_is_an_error() -> None:
    kept = AnswerRows(ANSWER, 2)
    kept.record(0, nn.Module(), *drawn(TOKENS, torch.Generator(), transposed=True), None, {})
    with pytest.raises(RunError, match="never ran"):
        kept.stacked(TOKENS)
