"""The port's side: a case in, a record out. The only module of `oracle` that runs a port."""

from __future__ import annotations

import importlib
import platform
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oracle import zoo
from oracle.bridge.mapping import check_names, leaf_variables, read_gradients, write_weights
from oracle.bridge.sites import Site, find_sites
from oracle.case import Case, cast_case, digest_case
from oracle.decoding import DecodeOptions, Decoding, make_decoding
from oracle.errors import BridgeError
from oracle.frameworks import import_tensorflow, import_tfa, installed_version
from oracle.record import Failure, Origin, Record
from oracle.text import BOS, EOS

if TYPE_CHECKING:
    from tf_models.port import Port, Step

Arrays = Mapping[str, np.ndarray]


def run_port(
    case: Case,
    *,
    model: str,
    mode: str | None = None,
    dtype: Literal["float64", "float32"] = "float64",
) -> Record:
    """Compute the outputs, the loss and every gradient of a port.

    An exception of the port's is a result: the record holds it as its failure.

    Args:
        case: the spec, the weights and the batch.
        model: the port, `explicit_state/full`.
        mode: one of `oracle.zoo.MODES`; by default the port's own.
        dtype: the precision of the weights and the batch.

    Raises:
        MissingPackageError: if TensorFlow, or tfa where the port needs it, is not installed.
        UsageError: if there is no such port, or it cannot run in that mode.
        BridgeError: if the port's variables are not those of the spec.
    """
    (choice,) = zoo.choose(model)
    mode = zoo.choose_mode(choice.variant, mode, port=choice.name)
    tf = import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    module = importlib.import_module(f"tf_models.{choice.model.name}")
    weights, batch = cast_case(case, dtype)
    run = _run_in_session if mode == "v1" else _run_in_function
    try:
        tensors, variables = run(
            module, choice.variant.name, case, weights, batch, mode=mode, dtype=tf.as_dtype(dtype)
        )
        failure = None
    except _PortRaisedError as error:
        tensors, variables, failure = {}, {}, error.failure
    origin = Origin(
        side="port",
        model=choice.name,
        mode=mode,
        dtype=dtype,
        framework="tensorflow",
        versions={
            name: version
            for name in ("tensorflow", "tensorflow-addons", "keras", "tf-keras", "numpy")
            if (version := installed_version(name))
        },
        python=platform.python_version(),
        device=_describe_device(tf),
        case=digest_case(case),
        seed=case.seed,
        weights=case.weights_from,
        data=case.data_from,
        flags={"tf32": "off"},
    )
    return Record(case.spec, origin, tensors, variables, failure)


def decode_port(
    case: Case, *, model: str, options: DecodeOptions, mode: Literal["function", "eager"] | None = None
) -> Decoding:
    """Decode the sources of a case with a translator's port, in float64.

    Args:
        case: the spec, the weights and the batch, whose targets play no part.
        model: the port, `attention_nmt/lstm`.
        options: how to decode.
        mode: in `tf.function`, which is the default, or eagerly. tfa's beam search has no kernel for XLA.

    Raises:
        MissingPackageError: if TensorFlow or tfa is not installed.
        UsageError: if there is no such port, it is no translator, or it cannot run in that mode.
    """
    choice = zoo.choose_translator(model)
    chosen_mode = zoo.choose_decoding_mode(mode)
    tf = import_tensorflow()
    import_tfa()
    module = importlib.import_module(f"tf_models.{choice.model.name}")
    weights, batch = cast_case(case, "float64")
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    port, _ = _load_port(
        module, choice.variant.name, case, weights, tensors, eager=chosen_mode == "eager", dtype=tf.float64
    )
    greedy, beams = port.greedy_decode, port.beam_search_decode
    if chosen_mode == "function":
        greedy, beams = tf.function(greedy), tf.function(beams)
    source = tensors["source"], tensors["source_length"]
    tokens = {"start_token": BOS, "end_token": EOS, "maximum_iterations": options.maximum_iterations}
    penalty = options.length_penalty_weight
    ids, _ = greedy(*source, **tokens)
    all_ids, _ = beams(*source, **tokens, beam_width=options.beam_width, length_penalty_weight=penalty)
    return make_decoding(ids, all_ids, options)


class _PortRaisedError(Exception):
    """The port raised: what it raised, as the record keeps it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _call_port(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call the port's code. What it raises is the port's failure; all else that raises is ours."""
    try:
        return function(*arguments, **options)
    except Exception as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        message = lines[-1].strip() if lines else ""
        failure = Failure(type(error).__name__, message, traceback.format_exc())
        raise _PortRaisedError(failure) from error


def _run_in_function(
    module: ModuleType, variant: str, case: Case, weights: Arrays, batch: Arrays, *, mode: str, dtype: Any
) -> tuple[dict[str, np.ndarray | None], dict[str, tuple[str, ...]]]:
    """Run the port eagerly, in `tf.function`, or compiled by XLA. Gives tensors and variables."""
    tf = import_tensorflow()
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    port, sites = _load_port(module, variant, case, weights, tensors, eager=mode == "eager", dtype=dtype)
    step = port.step if mode == "eager" else tf.function(port.step)
    if mode == "xla":
        step = tf.function(port.step, jit_compile=True)
    computed = tf.nest.map_structure(_to_numpy, _call_port(step, tensors))
    return _name_tensors(sites, computed), _gradient_variables(sites)


def _load_port(
    module: ModuleType,
    variant: str,
    case: Case,
    weights: Arrays,
    tensors: Mapping[str, Any],
    *,
    eager: bool,
    dtype: Any,
) -> tuple[Port, tuple[Site, ...]]:
    """Make a port with the weights, for all modes but v1. Its sites are given too."""
    tf = import_tensorflow()
    port = _call_port(module.build, case.spec, variant=variant, dtype=dtype)
    # The port makes its variables at its first step. XLA cannot make any, so `tf.function` goes first.
    _call_port(port.step if eager else tf.function(port.step).get_concrete_function, tensors)
    sites = find_sites(case.spec, port.convention)
    by_name = _check_variables(sites, port)
    for name, array in write_weights(sites, weights).items():
        by_name[name].assign(array)
    return port, sites


def _run_in_session(
    module: ModuleType, variant: str, case: Case, weights: Arrays, batch: Arrays, *, mode: str, dtype: Any
) -> tuple[dict[str, np.ndarray | None], dict[str, tuple[str, ...]]]:
    """Run the port in a v1 graph and session. Gives tensors and variables."""
    del mode
    tf = import_tensorflow()
    with tf.Graph().as_default():
        port = _call_port(module.build, case.spec, variant=variant, dtype=dtype)
        tensors = {name: tf.compat.v1.placeholder(array.dtype, array.shape) for name, array in batch.items()}
        step = _call_port(port.step, tensors)
        sites = find_sites(case.spec, port.convention)
        by_name = _check_variables(sites, port)
        fetched = tf.nest.flatten(step)
        with tf.compat.v1.Session() as session:
            session.run(tf.compat.v1.global_variables_initializer())
            for name, array in write_weights(sites, weights).items():
                by_name[name].load(array, session)
            values = iter(
                _call_port(
                    session.run,
                    [tensor for tensor in fetched if tensor is not None],
                    {tensors[name]: array for name, array in batch.items()},
                )
            )
    filled = [None if tensor is None else np.asarray(next(values)) for tensor in fetched]
    return _name_tensors(sites, tf.nest.pack_sequence_as(step, filled)), _gradient_variables(sites)


def _check_variables(sites: Sequence[Site], port: Port) -> dict[str, Any]:
    """The port's variables by name: all that it can train, and those of the spec, each once."""
    by_name = port.variables_by_name()
    where = f"the variables of {type(port).__module__}"
    named = {id(variable) for variable in by_name.values()}
    if unnamed := [variable.name for variable in port.trainable_variables if id(variable) not in named]:
        raise BridgeError(
            f"{where}: {', '.join(unnamed)} can be trained but has no name; add it to variables_by_name"
        )
    check_names(sites, {name: tuple(variable.shape) for name, variable in by_name.items()}, where=where)
    return by_name


def _name_tensors(sites: Sequence[Site], step: Step) -> dict[str, np.ndarray | None]:
    """Name everything as a record does."""
    gradients = {**step.gradients, **read_gradients(sites, step.variable_gradients)}
    named = {f"gradient/{name}": gradient for name, gradient in gradients.items()}
    computed: dict[str, Any] = {**step.forward, "loss": step.loss, **named}
    return computed


def _gradient_variables(sites: Sequence[Site]) -> dict[str, tuple[str, ...]]:
    return {f"gradient/{leaf}": names for leaf, names in leaf_variables(sites).items()}


def _to_numpy(tensor: Any) -> np.ndarray | None:
    return None if tensor is None else np.asarray(tensor)


def _describe_device(tf: ModuleType) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    return "gpu" if gpus else "cpu"
