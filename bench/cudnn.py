"""The LSTM encoder-decoder on cuDNN, by `jax.experimental.rnn`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from oracle.case import Case
from oracle.spec import LSTM, EncoderDecoder
from oracle.steps.leaves import flatten_leaves, nest_leaves


def make_cudnn(case: Case, *, lstm: Callable[..., Any] | None = None) -> tuple[Any, Any, Callable[..., Any]]:
    """The loss and gradients of a case's model by its parameters, its parameters, and what flattens them.

    Args:
        case: of an `EncoderDecoder` without lengths.
        lstm: what runs the loop; by default cuDNN. `jax.experimental.rnn.lstm_ref` does it anywhere.
    """
    import jax
    import jax.numpy as jnp
    from jax.experimental import rnn

    run = rnn.lstm if lstm is None else lstm
    spec = case.spec
    assert isinstance(spec, EncoderDecoder)

    def loop(cell: LSTM, leaves: Mapping[str, Any], inputs: Any, state: tuple[Any, Any]) -> tuple[Any, Any]:
        rows, time, features = inputs.shape
        sizes = {"input_size": features, "hidden_size": cell.units, "num_layers": 1}
        lengths = jnp.full((rows,), time, jnp.int32)
        flags = {"dropout": 0.0, "bidirectional": False}
        h, c = (part[None] for part in state)
        outputs, h, c = run(inputs, h, c, pack_weights(cell, leaves), lengths, **sizes, **flags)
        return outputs, (h[0], c[0])

    def loss_of(params: Any, batch: Mapping[str, Any]) -> Any:
        zeros = jnp.zeros((len(batch["source"]), spec.encoder.units), batch["source"].dtype)
        _, state = loop(spec.encoder, params["encoder"]["cell"], batch["source"], (zeros, zeros))
        decoded, _ = loop(spec.decoder, params["decoder"]["cell"], batch["target"][:, :-1], state)
        if spec.projection:
            decoded = decoded @ params["projection"]["kernel"] + params["projection"]["bias"]
        return jnp.mean(jnp.square(decoded - batch["target"][:, 1:]))

    return jax.value_and_grad(loss_of), nest_leaves(case.weights), flatten_leaves


def pack_weights(cell: LSTM, leaves: Mapping[str, Any]) -> Any:
    """The leaves as the vector that cuDNN takes: both matrices by rows of gates i, f, g, o, two biases."""
    import jax.numpy as jnp

    gates = jnp.repeat(jnp.array([0.0, cell.forget_bias, 0.0, 0.0], leaves["bias"].dtype), cell.units)
    bias = leaves["bias"] + gates
    parts = [leaves["kernel"].T.ravel(), leaves["recurrent_kernel"].T.ravel(), bias, jnp.zeros_like(bias)]
    return jnp.concatenate(parts)
