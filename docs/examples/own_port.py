"""A port of your own, checked: your TensorFlow code, our oracle, any sizes."""

import tensorflow as tf

import oracle
from tf_models.explicit_state import BasicRNNDecoder, BasicRNNEncoder

# What the model is meant to be. Keras keeps the forget bias in its bias: none is added at run time.
cell = oracle.LSTM(units=7, forget_bias=0.0)
spec = oracle.EncoderDecoder(
    source_features=3, target_features=7, encoder=cell, decoder=cell, projection=False
)
case = oracle.random_case(spec, seed=1)

# Your code, as it stands, in float64.
source = tf.transpose(tf.constant(case.batch["source"], tf.float64), [1, 0, 2])
target = tf.transpose(tf.constant(case.batch["target"], tf.float64), [1, 0, 2])
encoder, decoder = BasicRNNEncoder(7, dtype="float64"), BasicRNNDecoder(7, dtype="float64")
_, state = encoder(source)
decoder(target[:-1], initial_state=state)

# The case's weights, by name.
variables = {}
for scope, model in (("encoder", encoder), ("decoder", decoder)):
    for name in ("kernel", "recurrent_kernel", "bias"):
        variables[f"{scope}/cell/{name}"] = getattr(model.cell, name)
for path, variable in variables.items():
    variable.assign(case.weights[path])

with tf.GradientTape() as tape:
    _, state = encoder(source)
    outputs, _ = decoder(target[:-1], initial_state=state)
    loss = tf.reduce_mean(tf.square(outputs - target[1:]))
gradients = tape.gradient(loss, variables)

# Hold what you computed against the oracle. What you leave out is not asked for.
record = oracle.record_port(
    case,
    {"loss": loss, **{f"gradient/{path}": gradient for path, gradient in gradients.items()}},
    model="my port",
)
comparison = oracle.compare_records(record, oracle.run_oracle(case, model="my port"), only=record.tensors)
print(oracle.render_text([comparison]))
assert comparison.matches
