"""Say what headpatch can and cannot control in a model.

Loads the model, asks it the study's question, and tries, in the language model and in the vision
tower: are single heads changed exactly by the fast path (against plain forward passes), how large
is the noise floor, what would each sweep cost? Prints towers, layers, heads, answer tokens, image
tokens and times. Writes nothing; the two answers need not flip.

Example: `headpatch check --model demo`
"""

from headpatch.core.question import Verb

VERB = Verb(
    "check",
    "What can be controlled in this model, exactly, and at what cost?",
    None,
    __doc__ or "",
    (),
    pairs=False,
    without=("region", "out", "force"),
)
