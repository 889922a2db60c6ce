"""Encoder-decoders in Flax with purely functional state, after TF1, Keras and tfa.seq2seq.

A library in its own right: it knows nothing of TensorFlow and nothing of the oracle. Four modules gather
the public names under the names they have in TensorFlow:

- `jax_models.seq2seq`: `tfa.seq2seq`
- `jax_models.tf1`: `tf.compat.v1.nn`, `tf.compat.v1.nn.rnn_cell` and `tf.contrib.rnn`
- `jax_models.keras_layers`: `tf.keras.layers`
- `jax_models.tfa_cells`: `tfa.rnn`

`jax_models.optimizers` has TensorFlow's optimizers and schedules as `optax.GradientTransformation`s, by
namespace.

`jax_models.counterfactual` has the encoder-decoders once more, as pure functions in which everything that
ports get wrong is a knob.

`jax_models.quirks` lists the faults of TensorFlow's that are the default here, each with its switch.
"""
