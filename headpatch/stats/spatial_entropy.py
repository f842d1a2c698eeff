r"""How many separate places on the image a head's attention stands out at.

Spatial entropy, as the code of S. Kang et al., *Your Large Vision-Language Model Only Needs A Few
Attention Heads For Visual Grounding* (CVPR 2025, arXiv:2503.06287) has it: of a map a, what lies
above twice its mean, b = max(a - 2 mean(a), 0), falls into connected components, neighbours by side
or corner; with p_c the part of all b in component c, H = -Σ p_c ln p_c, in nats. 0: one place.

Theirs is of a square map and drops b below 0.001; here neighbours are patches whose boxes touch or
overlap, so that tiles are read as well, and H does not hang on a map's sum. Where nothing stands
out (an even map, for them infinite) H is ln(tokens), more than any map has in which something does.
"""

import numpy as np
from jaxtyping import Float, Int

Rows = Float[np.ndarray, "*batch tokens"]
Edges = Int[np.ndarray, "2 edges"]

_ABOVE = 2.0  # times the mean: what stands out
_TOUCH = 0.25  # of the smaller patch: boxes that lie nearer than that touch; they are measured
_BLOCK = 1 << 22  # comparisons at a time


def neighbours(boxes: Float[np.ndarray, "tokens 4"]) -> Edges:
    """Return every two patches whose boxes touch or overlap, each two once; those of NaN have none.

    On a plain grid these are a patch's eight neighbours.
    """
    low, high = boxes[:, :2].astype(np.float64), boxes[:, 2:].astype(np.float64)
    slack, found = _TOUCH * (high - low), [np.zeros((2, 0), dtype=np.int64)]
    step = max(_BLOCK // max(len(boxes), 1), 1)
    for start in range(0, len(boxes), step):
        some = slice(start, start + step)
        room = np.minimum(slack[some, None], slack[None])
        apart = np.maximum(low[some, None] - high[None], low[None] - high[some, None])
        first, second = np.nonzero((apart <= room).all(-1))
        found.append(np.stack([first + start, second]))
    edges = np.concatenate(found, axis=1)
    return edges[:, edges[0] < edges[1]]


def spatial_entropy(rows: Rows, edges: Edges) -> Float[np.ndarray, "*batch"]:
    """Return H of each row (nats), given which of its tokens are neighbours."""
    maps = rows.reshape(-1, rows.shape[-1]).astype(np.float64)
    step = max(_BLOCK // max(edges.shape[1], maps.shape[1]), 1)
    blocks = [_entropies(maps[i : i + step], edges) for i in range(0, len(maps), step)]
    return np.concatenate([np.zeros(0), *blocks]).reshape(rows.shape[:-1])


def _entropies(maps: Float[np.ndarray, "maps tokens"], edges: Edges) -> Float[np.ndarray, " maps"]:
    """Find the components of all maps at once: those of one graph that holds every map."""
    from scipy.sparse import coo_array  # half a second to import
    from scipy.sparse.csgraph import connected_components

    count, tokens = maps.shape
    excess = np.maximum(maps - _ABOVE * maps.mean(1, keepdims=True), 0.0)
    total = excess.sum(1)
    where, edge = ((excess[:, edges[0]] > 0) & (excess[:, edges[1]] > 0)).nonzero()
    ends = where * tokens + edges[:, edge]
    size = count * tokens
    graph = coo_array((np.ones(len(edge), dtype=np.int8), tuple(ends)), shape=(size, size))
    number, part = connected_components(graph, directed=False)
    share = np.bincount(part, (excess / np.where(total > 0, total, 1.0)[:, None]).ravel(), number)
    owner = np.empty(number, dtype=np.int64)
    owner[part] = np.repeat(np.arange(count), tokens)
    some = share > 0
    terms = -share[some] * np.log(share[some])
    found = np.bincount(owner[some], terms, count)
    return np.where(total > 0, np.maximum(found, 0.0), np.log(max(tokens, 1)))
