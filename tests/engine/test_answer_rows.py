"""Rows finished together against rows computed one by one."""

import pytest
import torch
from torch import Tensor, nn

from headpatch.engine.answer_rows import rows, scores
from headpatch.engine.attention import attention_rows

TOKENS, ANSWER = 7, 5


def masks(kind: str) -> Tensor | None:
    seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool).tril()[None, None].repeat(2, 1, 1, 1)
    seen[1, ..., 0] = False  # padding
    if kind == "boolean":
        return seen
    return None if kind == "none" else torch.zeros(2, 1, TOKENS, TOKENS).masked_fill(~seen, -1e9)


@pytest.mark.parametrize("kind", ["none", "boolean", "additive"])
def test_layers_of_several_ways_come_out_in_their_order(kind: str) -> None:
    module, rng = nn.Module(), torch.Generator().manual_seed(0)
    mask = masks(kind)
    ways = [{}, {"scaling": 0.3}, {}, {"softcap": 2.0}, {"scaling": 0.3}]
    kept, wanted = [], []
    for options in ways:
        query = torch.randn(2, 4, TOKENS, 8, generator=rng)
        key = torch.randn(2, 2, TOKENS, 8, generator=rng)
        kept.append(scores(module, query, key, mask, ANSWER, options))
        one = attention_rows(module, query, key, mask, torch.tensor([ANSWER]), **options)
        wanted.append(one[:, :, 0])
    found = rows(kept)
    assert len(found) == len(ways)
    for ours, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
        assert not ours[..., ANSWER + 1 :].any()
