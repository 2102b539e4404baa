"""``rotator demo``: the daemon in fast motion, watched by a verifier that forgives nothing.

The daemon is the real one, a process of its own whose config has periods of seconds. Everything here looks at it from
outside, as any observer would: through its log, its published file, the tokens that it delivers, and its database
opened for reading. ``world`` starts and stops it, ``verifier`` checks its tokens, ``story`` follows its log, ``scene``
reads its state, ``picture`` draws that, and ``show`` puts them together.
"""

from rotator.demo.show import run_demo

__all__ = ["run_demo"]
