"""All views of one pair of pictures, measured one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from headpatch.core.progress import Stages
from headpatch.core.session import Session
from headpatch.errors import RunError
from headpatch.heads import Head
from headpatch.questions.path.direct import Attribution, attribute
from headpatch.questions.path.edges import EdgeCurves, edges
from headpatch.questions.path.heads import HeadPaths, head_paths
from headpatch.questions.path.stream import StreamCurves, streams


@dataclass(frozen=True, eq=False)
class Views:
    """What every view found of one pair.

    Attributes
    ----------
    attribution
        None where LD cannot be attributed to the model's parts; `why_not` says why.
    heads
        None where no heads were asked for.
    """

    stream: StreamCurves
    edges: EdgeCurves
    attribution: Attribution | None
    heads: HeadPaths | None
    why_not: str = ""

    @property
    def noise_floor(self) -> float:
        """The largest of the views', in logits."""
        floors = [self.stream.noise_floor, self.edges.noise_floor]
        return max(floors if self.heads is None else [*floors, self.heads.noise_floor])


def measure(session: Session, heads: Sequence[Head], stages: Stages) -> Views:
    """Measure every view; paths to `heads`, if there are any.

    Parameters
    ----------
    session
        Opened with positions ``answer``.

    Raises
    ------
    InputError
        If the prompt lacks the tokens that an edge names, or the region holds no patch.
    """
    with stages("Swapping the stream") as advance:
        swapped = streams(session, advance)
    with stages("Cutting edges") as advance:
        cuts = edges(session, advance)
    attribution, why_not = None, ""
    try:
        attribution = attribute(session)
    except RunError as error:
        why_not = str(error)
    paths = None
    if heads:
        with stages("Patching paths to heads") as advance:
            paths = head_paths(session, heads, advance)
    return Views(swapped, cuts, attribution, paths, why_not)
