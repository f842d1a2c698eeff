"""What every analysis of one pair starts from: the model, the pair and its two untouched runs."""

from dataclasses import dataclass

from headpatch.engine.forward import Keep
from headpatch.engine.patching import Baseline, run_pair
from headpatch.errors import InputError
from headpatch.heads import Tower
from headpatch.models.load import load
from headpatch.models.prompt import Prompt, encode
from headpatch.models.vlm import VLM
from headpatch.pairs.pair import Pair
from headpatch.study import Study


@dataclass(frozen=True, eq=False)
class Session:
    """A study's model and pair, and both runs untouched.

    Attributes
    ----------
    base
        Rows of every head in both towers, and z of the language model.
    valid
        Whether LD_with > 0 > LD_without; only a forced study may be invalid.
    """

    study: Study
    vlm: VLM
    pair: Pair
    base: Baseline
    valid: bool

    @property
    def prompt(self) -> Prompt:
        """Both runs as a batch of two."""
        return self.base.prompt


def open_session(study: Study, vlm: VLM | None = None, z: tuple[Tower, ...] = ()) -> Session:
    """Load the model (unless given), read the pair and run both pictures.

    Parameters
    ----------
    z
        Towers whose z is kept, for interventions.

    Raises
    ------
    InputError
        If the study's input is bad, or its two answers do not differ (see `Study.force`).
    """
    pair = study.pair()  # bad pictures are refused before the model loads
    vlm = vlm or load(study.model, study.device, study.dtype)
    prompt = encode(
        vlm, [pair.with_image, pair.without_image], pair.question, study.answers, study.prompt
    )
    base = run_pair(vlm, prompt, Keep(lm_rows=True, vision_rows=True, z=z))
    valid = base.ld_with > 0 > base.ld_without
    if not valid and not study.force:
        yes, no = study.answers
        raise InputError(
            "--question",
            f"the model's two answers do not flip: LD_with = {base.ld_with:+.3f}, "
            f"LD_without = {base.ld_without:+.3f}",
            f"LD_with > 0 > LD_without ({yes} with the object, {no} without it)",
            "Change the question or the pictures, or use --force to run it marked as invalid.",
        )
    return Session(study, vlm, pair, base, valid)
