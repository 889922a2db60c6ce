"""The encoder-decoders once more, made for speed: the same numbers on the same leaves, of pure functions.

What `jax_models` writes as it is thought (modules, one scan, the derivative left to JAX) is written here as a
machine likes it:

* time comes first within; what does not depend on the step before (the inputs' projections, the memory's, the
  output layer) is one matrix product over all steps, outside of the loop;
* loops carry their own derivative, which keeps the gates and nothing else, and leaves every gradient of a
  weight to one matrix product over all steps after the loop;
* a loop can be cut into segments whose insides are computed a second time, `remat`, so that what is kept
  grows with the root of the number of steps.

The derivatives written by hand are those of reverse mode: `jax.jvp` refuses these functions. What pushes a
direction forward through a model takes the plain path, and is thereby a check of this one.
"""

from __future__ import annotations
