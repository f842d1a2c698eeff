"""Fast paths of the bundled model are compared with the plain one once in a process.

Wherever a study is opened they are compared, which takes 8 s of the bundled model. Of other models
the comparison is always made anew.
"""

from collections.abc import Callable, Hashable

import pytest


def install(patch: pytest.MonkeyPatch) -> None:
    """Have one comparison serve every study of the same weights, prompt and pictures."""
    from headpatch.engine import selfcheck

    made: dict[Hashable, object] = {}

    def once(compare: Callable[..., object]) -> Callable[..., object]:
        def compared(vlm, base, *where):
            if vlm.name != "demo":
                return compare(vlm, base, *where)
            config, inputs = vlm.model.config, base.prompt.inputs
            how = vlm.fingerprint, vlm.dtype, vlm.device, config._attn_implementation, *where
            tensors = [one.float().numpy(force=True).tobytes() for one in inputs.values()]
            starts = [(one.tokens, one.start, one.refused) for one in base.trace.prefills]
            key = compare, how, *inputs, *tensors, *starts
            if key not in made:
                made[key] = compare(vlm, base, *where)
            return made[key]

        return compared

    for name in ("check", "check_vision"):
        patch.setattr(selfcheck, name, once(getattr(selfcheck, name)))
