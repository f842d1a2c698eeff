"""The study: everything that a run depends on, as one frozen, strict YAML file.

Defaults live here and nowhere else. Unknown keys are errors. `Study()` is the bundled default
study: the seed's question, asked of the bundled model.
"""
