"""TensorFlow's contestants. Runs in a process of its own, in float32, with the threads that it is given."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bench.cases import BEAM_STEPS, BEAMS
from bench.prepared import CLIP_NORM, LEARNING_RATE, AbsentError, Clock, Prepared
from oracle import zoo
from oracle.bridge.mapping import read_gradients, read_weights, write_weights
from oracle.bridge.sites import Site, find_sites
from oracle.case import Case
from oracle.frameworks import import_tensorflow, import_tfa
from oracle.spec import AttentionNMT
from oracle.text import BOS, EOS

Arrays = Mapping[str, np.ndarray]


def start(threads: int) -> None:
    """Import TensorFlow, give it its threads, and let it start them."""
    tf = import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    tf.config.experimental.enable_tensor_float_32_execution(False)
    for device in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(device, True)
    product = tf.function(lambda a: a @ a)
    product(tf.ones([256, 256])).numpy()


def prepare(name: str, job: str, case: Case) -> Prepared:
    """Make a contestant ready.

    Raises:
        AbsentError: if it cannot take part here.
        OracleError: if it cannot be made.
    """
    if name == "keras":
        return _prepare_step(name, job, case, KerasLayers(case.spec), find_sites(case.spec, "keras"))
    if job == "beam":
        return _prepare_beams(name, case)
    if name == "tf-session":
        return _prepare_session(job, case)
    return _prepare_step(name, job, case, _build(case), find_sites(case.spec, "keras"))


def prepare_bridge(name: str, port: str) -> Prepared:
    """Make the reading of a port's trained checkpoint ready."""
    from oracle.bridge.checkpoints import read_checkpoint

    (choice,) = zoo.choose(port)
    path = str(choice.variant.weights)

    def read() -> dict[str, np.ndarray]:
        if name == "tf-reader":
            tf = import_tensorflow()
            reader = tf.train.load_checkpoint(path)
            return {each: reader.get_tensor(each) for each in reader.get_variable_to_shape_map()}
        checkpoint = read_checkpoint(path)
        sites = find_sites(choice.variant.spec, checkpoint.convention)
        return read_weights(sites, checkpoint.variables, where=path)

    clock = Clock()
    read()
    clock.lap()
    return Prepared(read, dict, clock.total())


def trained_case(port: str, rows: int) -> Case:
    """A case of a port's trained weights and of its data."""
    from oracle.check import CaseMaker, Request

    (choice,) = zoo.choose(port)
    return CaseMaker(Request((port,), batch_size=rows)).make(choice.variant)


def _build(case: Case) -> Any:
    """The port of a case's spec, on tfa."""
    import_tfa()
    name = "attention_nmt" if isinstance(case.spec, AttentionNMT) else "explicit_state"
    module = importlib.import_module(f"tf_models.{name}")
    return module.build(case.spec, variant="", dtype=import_tensorflow().float32)


class KerasLayers:
    """An encoder-decoder of Keras' layers: the port as one writes it today, without tfa.

    Its variables have the names of `tf_models.explicit_state`.
    """

    def __init__(self, spec: Any) -> None:
        tf = import_tensorflow()
        options = {"return_sequences": True, "return_state": True}
        self.encoder = tf.keras.layers.LSTM(spec.encoder.units, **options)
        self.decoder = tf.keras.layers.LSTM(spec.decoder.units, **options)
        self.projection = tf.keras.layers.Dense(spec.target_features) if spec.projection else None
        self.optimizer = tf.keras.optimizers.Adam(LEARNING_RATE)

    def variables_by_name(self) -> dict[str, Any]:
        """The weights of the built layers."""
        from tf_models.explicit_state import name_variables

        return name_variables(self.encoder.cell, self.decoder.cell, self.projection)

    def differentiate(self, batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        """The loss, and its gradient by each variable."""
        tf = import_tensorflow()
        with tf.GradientTape() as tape:
            _, *state = self.encoder(batch["source"])
            outputs, *_ = self.decoder(batch["target"][:, :-1], initial_state=state)
            if self.projection is not None:
                outputs = self.projection(outputs)
            loss = tf.reduce_mean(tf.square(outputs - batch["target"][:, 1:]))
        return loss, tape.gradient(loss, self.variables_by_name())

    def train_step(self, batch: Mapping[str, Any]) -> Any:
        """One step of Adam."""
        loss, gradients = self.differentiate(batch)
        variables = self.variables_by_name()
        self.optimizer.apply_gradients((gradients[name], variables[name]) for name in variables)
        return loss


def _prepare_step(name: str, job: str, case: Case, port: Any, sites: tuple[Site, ...]) -> Prepared:
    """A port whose step is a function of the batch, in one of TensorFlow 2's modes."""
    tf = import_tensorflow()
    batch = {key: tf.constant(array) for key, array in case.batch.items()}

    def differentiate(batch: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
        if isinstance(port, KerasLayers):
            return port.differentiate(batch)
        step = port.step(batch)
        return step.loss, step.variable_gradients

    # The layers make their variables at the first call, and XLA cannot make any.
    differentiate(_shrink(batch))
    variables = port.variables_by_name()

    def load() -> None:
        for key, array in write_weights(sites, case.weights).items():
            variables[key].assign(array)

    load()
    if job == "training":
        # The optimizer makes its slots, and XLA cannot.
        port.optimizer.build(list(variables.values()))
    of_job = port.train_step if job == "training" else differentiate
    step, trace, first = _compile(name, of_job, batch)
    moved = _read(sites, variables) if job == "training" else {}
    of_result: Any = step
    if job == "training":
        compute: Any = differentiate if name == "tf-eager" else _as_function(name, differentiate)
        of_result = lambda: compute(batch)  # noqa: E731 (as `step` is)

    def result() -> dict[str, np.ndarray | None]:
        load()
        loss, gradients = of_result()
        return _name(sites, loss, gradients)

    clips = isinstance(case.spec, AttentionNMT)
    return Prepared(step, result, first, trace, moved=moved, clip=CLIP_NORM if clips else None)


def _shrink(batch: Mapping[str, Any]) -> dict[str, Any]:
    """One row of two steps, by which the layers make their variables soon."""
    steps = {"source": 2, "target": 3}
    return {
        key: tensor[:1, : steps[key]] if key in steps else import_tensorflow().minimum(tensor[:1], 2)
        for key, tensor in batch.items()
    }


def _compile(
    name: str, function: Callable[..., Any], batch: Any
) -> tuple[Callable[[], Any], float | None, float]:
    """Trace a function and call it once. Gives a step, and the seconds of the trace and of all of it."""
    clock, trace = Clock(), None
    call: Any = function
    if name != "tf-eager":
        call = _as_function(name, function)
        call.get_concrete_function(batch)
        trace = clock.lap()
    _finish(call(batch))
    clock.lap()
    return lambda: _finish(call(batch)), trace, clock.total()


def _as_function(name: str, function: Callable[..., Any]) -> Any:
    tf = import_tensorflow()
    return tf.function(function, jit_compile=True if name == "tf-xla" else None)


def _finish(computed: Any) -> Any:
    """Wait for what was computed."""
    tf = import_tensorflow()
    tensor = next(each for each in tf.nest.flatten(computed) if each is not None)
    if "GPU" in tensor.device:
        tf.test.experimental.sync_devices()
    tensor.numpy()
    return computed


def _read(sites: tuple[Site, ...], variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    return read_weights(sites, {key: each.numpy() for key, each in variables.items()}, where="the contestant")


def _name(sites: tuple[Site, ...], loss: Any, gradients: Mapping[str, Any]) -> dict[str, np.ndarray | None]:
    arrays = {key: None if each is None else np.asarray(each) for key, each in gradients.items()}
    leaves = read_gradients(sites, arrays)
    return {"loss": np.asarray(loss), **{f"gradient/{leaf}": array for leaf, array in leaves.items()}}


def _prepare_session(job: str, case: Case) -> Prepared:
    """A v1 graph and session: without attention the TF1 original, else the port, as it runs there."""
    tf = import_tensorflow()
    v1 = tf.compat.v1
    is_nmt = isinstance(case.spec, AttentionNMT)
    import_tfa()
    module = importlib.import_module("tf_models.attention_nmt" if is_nmt else "tf_models.dynamic_rnn")
    sites = find_sites(case.spec, "keras" if is_nmt else "tf1")
    clock, graph = Clock(), tf.Graph()
    with graph.as_default():
        port = module.build(case.spec, variant="", dtype=tf.float32)
        feed = {v1.placeholder(array.dtype, array.shape, name): array for name, array in case.batch.items()}
        batch = dict(zip(case.batch, feed, strict=True))
        train = port.train_op(batch) if job == "training" else None
        computed = port.step(batch) if train is None else None
        trace = clock.lap()
        # The gradients of a training step are another part of the graph, for the comparison alone.
        computed = computed or port.step(batch)
        gradients = {key: each for key, each in computed.variable_gradients.items() if each is not None}
        # What is computed stays where it is: fetching every gradient would copy it.
        fetched = list(train or (computed.loss, tf.group(*gradients.values())))
        variables = port.variables_by_name()
        # It lives as long as the step.
        session = v1.Session()
        session.run(v1.global_variables_initializer())

    def load() -> None:
        with graph.as_default():
            for key, array in write_weights(sites, case.weights).items():
                variables[key].load(array, session)

    load()
    clock.lap()
    session.run(fetched, feed)
    first = trace + clock.lap()
    moved = {}
    if job == "training":
        with graph.as_default():
            values = session.run(variables)
        moved = read_weights(sites, values, where="the contestant")

    def result() -> dict[str, np.ndarray | None]:
        load()
        loss, arrays = session.run([computed.loss, gradients], feed)
        return _name(sites, loss, {key: arrays.get(key) for key in computed.variable_gradients})

    def step() -> Any:
        return session.run(fetched, feed)

    # TF1's Adam has an epsilon of its own.
    return Prepared(step, result, first, trace, moved=moved, epsilon=1e-8)


def _prepare_beams(name: str, case: Case) -> Prepared:
    tf = import_tensorflow()
    if name not in ("tf-eager", "tf-function"):
        raise AbsentError("it does not decode by beams")
    port = _build(case)
    batch = {key: tf.constant(array) for key, array in case.batch.items()}
    port.step(_shrink(batch))
    variables = port.variables_by_name()
    for key, array in write_weights(find_sites(case.spec, "keras"), case.weights).items():
        variables[key].assign(array)

    def search(batch: Mapping[str, Any]) -> Any:
        ids, _ = port.beam_search_decode(
            batch["source"],
            batch["source_length"],
            start_token=BOS,
            end_token=EOS,
            maximum_iterations=BEAM_STEPS,
            beam_width=BEAMS,
        )
        return ids

    step, trace, first = _compile(name, search, batch)
    return Prepared(step, lambda: {"ids": np.asarray(step())}, first, trace)
