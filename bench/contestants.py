"""Who takes part: every contestant, where it runs, and why one does not. No framework."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.cases import BenchCase
from oracle.spec import EncoderDecoder

Side = Literal["tf", "tf1", "jax", "numpy"]
"""The process that a contestant runs in. What TensorFlow runs in a v1 graph has one of its own: Keras takes
layers that were made inside and outside of one in turn for a mistake."""

SIDES: tuple[Side, ...] = ("tf", "tf1", "jax", "numpy")


@dataclass(frozen=True)
class Contestant:
    """One way to do a job.

    Args:
        name: what it is called in records.
        side: where it runs.
        summary: what it is, in one line.
    """

    name: str
    side: Side
    summary: str


CONTESTANTS = (
    Contestant("tf-eager", "tf", "TensorFlow, op by op"),
    Contestant("tf-function", "tf", "TensorFlow, in `tf.function`"),
    Contestant("tf-xla", "tf", "TensorFlow, in `tf.function(jit_compile=True)`"),
    Contestant("tf-session", "tf1", "TensorFlow, in a v1 session; without attention on `dynamic_rnn`"),
    Contestant("keras", "tf", "`tf.keras.layers.LSTM` in `tf.function`, which is cuDNN on a GPU"),
    Contestant("flax", "jax", "Flax's own `nn.RNN(OptimizedLSTMCell)`, jitted"),
    Contestant("plain", "jax", "the oracle's plain path: a scan and its autodiff, jitted"),
    Contestant("fast", "jax", "the oracle's fast path, jitted"),
    Contestant("fast-remat", "jax", "the oracle's fast path, rematerialised"),
    Contestant("cudnn", "jax", "cuDNN's LSTM by `jax.experimental.rnn`, jitted"),
    Contestant("floor-numpy", "numpy", "the same matrix products alone, in NumPy"),
    Contestant("floor-jax", "jax", "the same matrix products alone, in one program of JAX"),
    Contestant("bridge", "tf", "a checkpoint read and carried to the oracle's leaves"),
    Contestant("tf-reader", "tf", "every tensor of a checkpoint by `tf.train.load_checkpoint`"),
)

FLOORS = ("floor-numpy", "floor-jax")

TENSORFLOW = ("tf-eager", "tf-function", "tf-xla", "tf-session", "keras")
"""TensorFlow's modes, the fastest of which that works is the one to be faster than."""


def find_contestant(name: str) -> Contestant:
    """The contestant of a name."""
    return next(each for each in CONTESTANTS if each.name == name)


def list_contestants(case: BenchCase) -> list[tuple[Contestant, str]]:
    """Who could take part in a case, each with the reason why it does not; empty if it does.

    What depends on the machine and the installed versions is found out where the contestant runs.
    """
    return [(find_contestant(name), _missing(name, case)) for name in _name(case)]


_BRIDGES = ("bridge", "tf-reader")


def _name(case: BenchCase) -> tuple[str, ...]:
    """Who does such a job at all."""
    if case.job == "command":
        return ()
    if case.job == "bridge":
        return _BRIDGES
    if case.job == "beam" or case.target:
        return ("tf-eager", "tf-function", "tf-xla", "plain")
    floors = () if case.job == "gradient" else FLOORS
    return tuple(each.name for each in CONTESTANTS if each.name not in (*_BRIDGES, *floors))


def _missing(name: str, case: BenchCase) -> str:
    if case.job == "beam":
        return "tfa's beam search has no kernel for XLA" if name == "tf-xla" else ""
    if isinstance(case.spec, EncoderDecoder):
        return "measured in the gradient step alone" if (name, case.job) == ("cudnn", "training") else ""
    if case.spec is None:
        return ""
    if name == "keras":
        return "no layer of Keras computes this attention"
    if name in ("flax", "cudnn"):
        return "it has no attention"
    if (name, case.job) == ("tf-session", "training"):
        return "the port's optimizer is Keras', which takes no step in a v1 session"
    return ""
