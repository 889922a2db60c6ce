"""The port's side: a case in, a record out. The only module of `oracle` that runs a port."""

from __future__ import annotations

import importlib
import platform
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from oracle import zoo
from oracle.bridge.mapping import check_names, leaf_variables, read_gradients, write_weights
from oracle.bridge.sites import Site, find_sites
from oracle.case import Case, cast_case, digest_case
from oracle.decoding import DecodeOptions, Decoding, make_decoding
from oracle.errors import BridgeError, UsageError
from oracle.frameworks import import_tensorflow, import_tfa, installed_version
from oracle.hearing import gather_point, split_point
from oracle.judgement import Hearing, choose_directions, hear, settle
from oracle.record import Failure, Origin, Record
from oracle.recorder import Taps
from oracle.text import BOS, EOS

if TYPE_CHECKING:
    from tf_models.port import Port, Step

Arrays = Mapping[str, np.ndarray]

UNROLLED = "unrolled"
"""The mode in which every step of the port's loops has operations of its own, in `tf.function`."""

BITWISE = "bitwise the same"
"""What `describe_repeats` says of runs that are."""

Tensors = dict[str, np.ndarray | None]

POLICIES = ("mixed_float16", "mixed_bfloat16")
"""Keras' policies of mixed precision: weights in float32, computation in half of it."""


def run_port(
    case: Case,
    *,
    model: str,
    mode: str | None = None,
    dtype: Literal["float64", "float32", "mixed_float16", "mixed_bfloat16"] = "float64",
    repeats: int = 1,
) -> Record:
    """Compute the outputs, the loss and every gradient of a port.

    An exception of the port's is a result: the record holds it as its failure.

    Args:
        case: the spec, the weights and the batch.
        model: the port, `explicit_state/full`.
        mode: one of `oracle.zoo.MODES`, or `unrolled`; by default the port's own.
        dtype: the precision of the weights and the batch, or one of `POLICIES`.
        repeats: how often to compute. The record has the first; from two on, its flag `repeats` says
            whether the others were bitwise the same.

    Raises:
        MissingPackageError: if TensorFlow, or tfa where the port needs it, is not installed.
        UsageError: if there is no such port, or it cannot run in that mode.
        BridgeError: if the port's variables are not those of the spec.
    """
    (choice,) = zoo.choose(model)
    if mode != UNROLLED:
        mode = zoo.choose_mode(choice.variant, mode, port=choice.name)
    tf = import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    module = importlib.import_module(f"tf_models.{choice.model.name}")
    is_mixed = dtype in POLICIES
    weights, batch = cast_case(case, "float32" if is_mixed else dtype)
    kind = tf.keras.mixed_precision.Policy(dtype) if is_mixed else tf.as_dtype(dtype)
    run = _run_in_session if mode == "v1" else _run_in_function
    flags = {"tf32": "off"}
    try:
        runs, variables = run(
            module, choice.variant.name, case, weights, batch, mode=mode, dtype=kind, repeats=repeats
        )
        tensors, failure = runs[0], None
        if repeats > 1:
            flags["repeats"] = describe_repeats(runs)
    except _PortRaisedError as error:
        tensors, variables, failure = {}, {}, error.failure
    flags |= {"policy": dtype} if is_mixed else {}
    origin = _describe_port(
        case, choice.name, mode=mode, dtype="mixed" if is_mixed else dtype, flags=flags, tf=tf
    )
    return Record(case.spec, origin, tensors, variables, failure)


def trace_port(case: Case, *, model: str, dtype: Literal["float64", "float32"] = "float64") -> Record:
    """Compute what `run_port` does, eagerly, and what each layer read and gave at each step.

    The record has `step/<site>/<part>` and `gradient/step/<site>/<part>` too; see `oracle.recorder.Taps`.
    An exception of the port's is a result: the record holds it as its failure.

    Args:
        case: the spec, the weights and the batch.
        model: the port, `explicit_state/full`.
        dtype: the precision of the weights and the batch.

    Raises:
        MissingPackageError: if TensorFlow, or tfa where the port needs it, is not installed.
        UsageError: if there is no such port, or it cannot run eagerly.
        BridgeError: if the port's variables are not those of the spec.
    """
    (choice,) = zoo.choose(model)
    if "eager" not in choice.variant.modes:
        raise UsageError(
            f"{choice.name} cannot run eagerly, so its steps cannot be seen; localise it from its ordinary "
            "record"
        )
    import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    module = importlib.import_module(f"tf_models.{choice.model.name}")
    return trace_built(case, module.build, model=choice.name, variant=choice.variant.name, dtype=dtype)


def trace_built(
    case: Case,
    build: Callable[..., Port],
    *,
    model: str,
    variant: str = "",
    dtype: Literal["float64", "float32"] = "float64",
) -> Record:
    """As `trace_port`, of a port that a function makes.

    Args:
        case: the spec, the weights and the batch.
        build: `build(spec, variant=..., dtype=...)`, as those of `tf_models`.
        model: what to call the port.
        variant: what `build` is given.
        dtype: the precision of the weights and the batch.
    """
    tf = import_tensorflow()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    weights, batch = cast_case(case, dtype)
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    options: dict[str, Any] = {"eager": True, "dtype": tf.as_dtype(dtype)}
    named: dict[str, np.ndarray | None] = {}
    variables, failure = {}, None
    try:
        port, sites = load_port(SimpleNamespace(build=build), variant, case, weights, tensors, **options)
        with Taps(_find_layers(sites, port)) as taps:
            step = _call_port(port.step, tensors)
        values, adjoints = taps.collect()
        computed = _name_tensors(sites, tf.nest.map_structure(_to_numpy, step))
        forward = {name: tensor for name, tensor in computed.items() if not name.startswith("gradient/")}
        backward = {name: tensor for name, tensor in computed.items() if name not in forward}
        named = values | forward | backward | adjoints
        variables = _gradient_variables(sites)
    except _PortRaisedError as error:
        failure = error.failure
    origin = _describe_port(case, model, mode="eager", dtype=dtype, flags={"tf32": "off"}, tf=tf)
    return Record(case.spec, origin, named, variables, failure)


def _find_layers(sites: Sequence[Site], port: Port) -> Callable[[Any], str | None]:
    """The site of a layer, by the variables that it owns; None if they are of none, or of several."""
    paths = {whole: site.path for site in sites for whole in site.variables.values()}
    owners = {id(variable): paths[name] for name, variable in port.variables_by_name().items()}

    def find(layer: Any) -> str | None:
        found = {owners.get(id(variable)) for variable in layer.variables} - {None}
        return found.pop() if len(found) == 1 else None

    return find


def _describe_port(
    case: Case, model: str, *, mode: str | None, dtype: Any, flags: dict[str, str], tf: ModuleType
) -> Origin:
    """Where a port's record of a case comes from that was computed here."""
    return Origin(
        side="port",
        model=model,
        mode=str(mode),
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
        flags=flags,
    )


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
    port, _ = load_port(
        module, choice.variant.name, case, weights, tensors, eager=chosen_mode == "eager", dtype=tf.float64
    )
    greedy, beams = port.greedy_decode, port.beam_search_decode
    if chosen_mode == "function":
        greedy, beams = as_function(greedy), as_function(beams)
    source = tensors["source"], tensors["source_length"]
    tokens = {"start_token": BOS, "end_token": EOS, "maximum_iterations": options.maximum_iterations}
    penalty = options.length_penalty_weight
    ids, _ = greedy(*source, **tokens)
    all_ids, _ = beams(*source, **tokens, beam_width=options.beam_width, length_penalty_weight=penalty)
    return make_decoding(ids, all_ids, options)


def hear_port(case: Case, *, port: Record, oracle: Record, seed: int = 0) -> Hearing:
    """Hear the port: its record's gradients against the slopes of its own loss, in float64.

    The loss is computed in `tf.function`, whatever mode the record was made in.

    Args:
        case: what both records are of.
        port: the port's record, in float64.
        oracle: the oracle's, for the directions.
        seed: of the directions.

    Raises:
        MissingPackageError: if TensorFlow, or tfa where the port needs it, is not installed.
        UsageError: if there is no such port.
    """
    (choice,) = zoo.choose(port.origin.model)
    tf = import_tensorflow()
    if choice.model.needs_tfa:
        import_tfa()
    module = importlib.import_module(f"tf_models.{choice.model.name}")
    weights, batch = cast_case(case, "float64")
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    live, sites = load_port(
        module, choice.variant.name, case, weights, tensors, eager=False, dtype=tf.float64
    )
    by_name = live.variables_by_name()
    compute = as_function(lambda batch: live.step(batch).loss)

    def loss(point: Arrays) -> float:
        leaves, moved = split_point(point, weights)
        for name, array in write_weights(sites, leaves).items():
            by_name[name].assign(array)
        return float(compute({**tensors, **{name: tf.constant(array) for name, array in moved.items()}}))

    point, gradients, truths = gather_point(case, port, oracle)
    directions = choose_directions(gradients, truths, seed=seed)
    claims = {name: settle(gradients[name], truth) for name, truth in truths.items()}
    return hear(loss, point, claims, directions)


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
    module: ModuleType,
    variant: str,
    case: Case,
    weights: Arrays,
    batch: Arrays,
    *,
    mode: str,
    dtype: Any,
    repeats: int,
) -> tuple[list[Tensors], dict[str, tuple[str, ...]]]:
    """Run the port eagerly, in `tf.function`, or compiled by XLA. Gives each run's tensors, and variables."""
    tf = import_tensorflow()
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    port = _build_port(module, variant, case, dtype=dtype, unrolled=mode == UNROLLED)
    step = port.step if mode == "eager" else as_function(port.step)
    sites = _set_weights(
        port, case, weights, step if mode == "eager" else step.get_concrete_function, tensors
    )
    if mode == "xla":
        step = as_function(port.step, xla=True)
    computed = [tf.nest.map_structure(_to_numpy, _call_port(step, tensors)) for _ in range(repeats)]
    return [_name_tensors(sites, run) for run in computed], _gradient_variables(sites)


def load_port(
    module: Any,
    variant: str,
    case: Case,
    weights: Arrays,
    tensors: Mapping[str, Any],
    *,
    eager: bool,
    dtype: Any,
) -> tuple[Port, tuple[Site, ...]]:
    """Make a port with the weights, for all modes but v1.

    Args:
        module: what has `build(spec, variant=..., dtype=...)`, as those of `tf_models`.
        variant: what `build` is given.
        case: the spec.
        weights: leaves by path, of the dtype.
        tensors: the batch's, for the step in which the port makes its variables.
        eager: whether that step is run, or only traced.
        dtype: TensorFlow's, or a policy of Keras'.

    Returns:
        The port, and its sites.

    Raises:
        BridgeError: if the port's variables are not the spec's.
    """
    port = _build_port(module, variant, case, dtype=dtype)
    step = port.step if eager else as_function(port.step).get_concrete_function
    return port, _set_weights(port, case, weights, step, tensors)


def _build_port(module: Any, variant: str, case: Case, *, dtype: Any, unrolled: bool = False) -> Port:
    form = {"unrolled": True} if unrolled else {}
    return _call_port(module.build, case.spec, variant=variant, dtype=dtype, **form)


def _set_weights(
    port: Port, case: Case, weights: Arrays, step: Callable[..., Any], tensors: Mapping[str, Any]
) -> tuple[Site, ...]:
    """Have a port make its variables, in the first step, and set them. Gives its sites.

    XLA can make no variables: its first step is run, or traced, without.
    """
    _call_port(step, tensors)
    sites = find_sites(case.spec, port.convention)
    by_name = _check_variables(sites, port)
    for name, array in write_weights(sites, weights).items():
        by_name[name].assign(array)
    return sites


def as_function(computation: Callable[..., Any], *, xla: bool = False) -> Any:
    """A port's computation in `tf.function`.

    AutoGraph is left out: no port of the zoo has a Python condition on a tensor, and to convert the source of
    Keras, tfa and typeguard takes two thirds of a port's time, for the same graph.

    Args:
        computation: the step of a port, or what decodes.
        xla: whether XLA compiles it.
    """
    return import_tensorflow().function(computation, autograph=False, jit_compile=True if xla else None)


def _run_in_session(
    module: ModuleType,
    variant: str,
    case: Case,
    weights: Arrays,
    batch: Arrays,
    *,
    mode: str,
    dtype: Any,
    repeats: int,
) -> tuple[list[Tensors], dict[str, tuple[str, ...]]]:
    """Run the port in a v1 graph and session. Gives each run's tensors, and variables."""
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
            wanted = [tensor for tensor in fetched if tensor is not None]
            feed = {tensors[name]: array for name, array in batch.items()}
            runs = [iter(_call_port(session.run, wanted, feed)) for _ in range(repeats)]
    named = []
    for values in runs:
        filled = [None if tensor is None else _to_numpy(next(values)) for tensor in fetched]
        named.append(_name_tensors(sites, tf.nest.pack_sequence_as(step, filled)))
    return named, _gradient_variables(sites)


def describe_repeats(runs: Sequence[Mapping[str, np.ndarray | None]]) -> str:
    """Whether runs of one port on one case are bitwise the same, and where they differ most.

    Gives `3 runs, bitwise the same`, or `3 runs, 2 of 20 tensors differ, most gradient/x by 1.2e-17`.
    """
    differ = {}
    for name, tensor in runs[0].items():
        others = [run[name] for run in runs[1:]]
        if tensor is None or any(other is None for other in others):
            if not (tensor is None and all(other is None for other in others)):
                differ[name] = float("inf")
            continue
        unequal = [other for other in others if other is not None and other.tobytes() != tensor.tobytes()]
        if unequal:
            apart = [np.abs(other.astype(np.float64) - tensor.astype(np.float64)) for other in unequal]
            differ[name] = max(float(np.max(gap, initial=0.0)) for gap in apart)
    if not differ:
        return f"{len(runs)} runs, {BITWISE}"
    worst = max(differ, key=lambda name: differ[name])
    how_many = f"{len(differ)} of {len(runs[0])} tensors differ"
    return f"{len(runs)} runs, {how_many}, most {worst} by {differ[worst]:.2g}"


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
    if tensor is None:
        return None
    array = np.asarray(tensor)
    # NumPy has no bfloat16 of its own; every one of them is a float32 number.
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def _describe_device(tf: ModuleType) -> str:
    gpus = tf.config.list_physical_devices("GPU")
    return "gpu" if gpus else "cpu"
