"""The questions that headpatch answers: a package holds the whole story of one.

The registry: nothing else imports a question.
"""

from typing import Final

from headpatch.core.question import Verb
from headpatch.questions.ablate import VERB as ABLATE
from headpatch.questions.check import VERB as CHECK
from headpatch.questions.claims import VERB as CLAIMS
from headpatch.questions.combine import VERB as COMBINE
from headpatch.questions.compare import VERB as COMPARE
from headpatch.questions.cut import VERB as CUT
from headpatch.questions.evaluate import VERB as EVALUATE
from headpatch.questions.path import VERB as PATH
from headpatch.questions.rank import VERB as RANK
from headpatch.questions.rollout import VERB as ROLLOUT
from headpatch.questions.sweep import VERB as SWEEP
from headpatch.questions.trace import VERB as TRACE
from headpatch.questions.verdict import VERB as VERDICT

VERBS: Final[tuple[Verb, ...]] = (
    VERDICT,
    RANK,
    ABLATE,
    SWEEP,
    COMBINE,
    PATH,
    CUT,
    TRACE,
    ROLLOUT,
    EVALUATE,
    CLAIMS,
    COMPARE,
    CHECK,
)
"""In the order of the page."""
