"""A person's own live port held to account call by call: what its parts are given and give, and what the
oracle would compute if the calls were other.

`parts` finds the live objects, `reference` watches the calls of a person's reference in JAX and `taps` those
of the port in TensorFlow; `agreement` holds them against each other. `knobbed` and `turns` are the reference
with knobs at each call; `fits` is what can be done to gradients once they are computed.
"""
