"""What stands around the question in a prompt: the same whatever is asked, in every run."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from PIL import Image

from headpatch.pairs.pair import read_image


@dataclass(frozen=True)
class Framing:
    """How a question is put.

    Attributes
    ----------
    template
        The whole prompt, with ``{question}`` and an image token a picture. None: what the
        processor's chat template makes of one turn of the user's.
    system
        What a system turn says before that; None: none but what the template says by itself.
    context
        Paths of pictures that come before the one in question, the same in every run.
    """

    template: str | None = None
    system: str | None = None
    context: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: "str | Framing | None") -> "Framing":
        """Return a framing, or that of a template alone."""
        return given if isinstance(given, Framing) else cls(given)

    @property
    def alone(self) -> "Framing":
        """The same without other pictures."""
        return replace(self, context=())

    @property
    def pictures(self) -> tuple[Image.Image, ...]:
        """The pictures of `context`; an `InputError` if one cannot be read."""
        return tuple(_read(one, _changed(one)) for one in self.context)


def _changed(path: str) -> int:
    place = Path(path)
    return place.stat().st_mtime_ns if place.is_file() else 0


@lru_cache(maxsize=16)
def _read(path: str, _changed: int) -> Image.Image:
    return read_image(path, "context_images")
