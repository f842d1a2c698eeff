"""Pure maths on numpy arrays: where attention falls, how far apart it is, what a logit shift means.

Nothing here knows a model, a file or a picture; every module is usable alone.

- :mod:`~headpatch.stats.attention_mass`: attention mass of image regions
- :mod:`~headpatch.stats.divergence`: KL, JS divergence, JS distance
- :mod:`~headpatch.stats.effects`: logit difference, effect, normalized effect
- :mod:`~headpatch.stats.effects`: spread of controls, permutation p, noise floor
"""
