"""The questions that headpatch answers: a package holds the whole story of one.

The registry: nothing else imports a question.
"""

from typing import Final

import headpatch.core.study  # noqa: F401  it names every question's options, and comes first
from headpatch.core.question import Verb
from headpatch.questions.ablate import VERB as ABLATE
from headpatch.questions.combine import VERB as COMBINE
from headpatch.questions.cut import VERB as CUT
from headpatch.questions.path import VERB as PATH
from headpatch.questions.rank import VERB as RANK

VERBS: Final[tuple[Verb, ...]] = (RANK, ABLATE, COMBINE, PATH, CUT)
"""In the order of the page."""
