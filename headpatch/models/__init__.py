"""What is looked into: loading a model, and finding its tokens, patches and answers."""

import sys

from headpatch.errors import InputError
from headpatch.models.installed import check_transformers

if sys.flags.optimize > 1:  # before transformers is imported and complains at length
    raise InputError("python -OO", "it drops docstrings, which transformers reads", "python -O")
check_transformers()
