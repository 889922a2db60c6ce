"""Trajectories of optimizers alone, driven by given gradients: TensorFlow's against the counterparts in optax.

`python -m tests.trajectories` measures them all and writes the tables of docs/trajectory.md.
"""
