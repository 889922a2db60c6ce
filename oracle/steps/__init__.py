"""What the oracle computes of each kind of model: the forward pass, the loss, and every gradient.

A module each, with three functions. `differentiate(spec)` gives a pure function of weights (nested as Flax
takes them) and batch, which JAX can compile. `name_tensors(spec, computed)` names what it gave as a record
does, in the order of computation. `choose_segments(spec, batch)` says whether the fast path computes anything
again. These run under `run_jax` only.
"""
