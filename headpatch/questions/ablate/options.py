"""Options of `headpatch ablate`."""

from typing import Literal

from pydantic import Field

from headpatch.core.study.options import Changes, Count


class AblateOptions(Changes):
    """Which heads are changed, and how."""

    heads: str = Field("top:3", json_schema_extra={"metavar": "HEADS"})
    """Heads to change: 24.17,23.20 or 24.0-24.31 or layer:24 or top:5 (of the attention ranking);
    with a v of the vision tower: v8.3, layer:v8."""
    positions: Literal["answer", "question", "image", "all"] = "answer"
    """Where z of language-model heads is changed: answer, question, image, all."""
    controls: Count = 20
    """Random sets of heads of the same layers to compare with."""
