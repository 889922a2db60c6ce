"""The encoder-decoders once more, as pure functions in which everything that ports get wrong is a knob.

What differs from the models of `jax_models` in form (no modules, loops by `jax.lax.scan`, every formula
written anew) agrees with them in every number, if the knobs are neutral. So the one checks the other, and a
port's fault can be set up here by an argument of one compiled program.
"""

from __future__ import annotations
