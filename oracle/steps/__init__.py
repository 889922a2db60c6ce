"""What the oracle computes of each kind of model: the forward pass, the loss, and every gradient.

A module each, with two functions. `differentiate(spec)` gives a pure function of weights (nested as Flax
takes them) and batch, which JAX can compile. `name_tensors(spec, computed)` names what it gave as a record
does, in the order of computation. These run under `run_jax` only.
"""
