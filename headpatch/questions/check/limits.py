"""What cannot be done in a model, and what is done otherwise there."""

import torch

from headpatch.core.gate_view import SEEN_ALIKE
from headpatch.core.invalid_study import seen_alike
from headpatch.core.session import Session
from headpatch.core.tower import places_in_tower
from headpatch.engine.interventions import refused
from headpatch.models.placement import quantized


def limits(session: Session) -> list[str]:
    """Return it, a sentence each."""
    vlm = session.vlm
    found = []
    if vlm.found is not None:
        found.append("No table lists where its parts are: they were discovered in a run of it.")
    if layers := vlm.lm.grid.without:
        found.append(f"Layers {', '.join(map(str, layers))} have no attention heads.")
    if vlm.lm.at_output:
        found.append(
            "What a head gives is gated or normed before its output projection: z is what enters "
            "that, and attention rows are from before."
        )
    if vlm.vision is None or refused(vlm):
        why = vlm.family.why_no_vision
        found.append(
            f"Heads of the vision tower cannot be changed in this family{why and f': {why}'}."
        )
    elif vlm.feature_layer is not None and vlm.feature_layer + 1 < vlm.vision.grid.layers:
        found.append(
            f"Vision layers after {vlm.feature_layer} never reach the language model: their effect "
            "is 0 by construction."
        )
    if vlm.vision is not None and (why := places_in_tower(session).unknown):
        found.append(f"Attention inside the vision tower is not drawn: {why}.")
    if session.prompt.spans.crossed:
        found.append("The image comes in by cross-attention: heads cannot be ranked by attention.")
    elif (unknown := session.prompt.patches.unknown) is not None:
        found.append(f"Heads cannot be ranked by attention: {unknown.found}.")
    if seen_alike(session.prompt):
        found.append(f"{SEEN_ALIKE.capitalize()}: change the pictures, not the question.")
    if session.cut_away:
        found.append(f"{session.cut_away[0].upper()}{session.cut_away[1:]}.")
    if ends := session.prompt.left_out:
        found.append(
            f"The tokenizer ends every text with {' '.join(ends)}; headpatch leaves it out, so "
            "that the prompt ends where the answer starts."
        )
    if vlm.dtype != torch.float32:
        found.append("Weights of low precision: the sweep computes in float32 over them.")
    if quantized(vlm.model):
        found.append("Weights are stored in fewer bits; activations are not rounded to them.")
    return found
