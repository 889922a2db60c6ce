"""Records what a TensorFlow port computed, for gradient-oracle to verify elsewhere.

One file, to be copied to where the port runs: `oracle recorder > record_gradients.py`. It needs Python 3.6 or
later, NumPy, and any TensorFlow from 1.13 on; it imports nothing of gradient-oracle. In a program:

    import record_gradients

    with record_gradients.recording("port.safetensors", model="my port") as r:
        r.weights(model.variables)                   # before anything updates them
        r.inputs(source=source, target=target)
        with tf.GradientTape() as tape:
            loss = step(source, target)
        r.loss(loss)
        r.gradients(tape.gradient(loss, model.trainable_variables), model.trainable_variables)

In a v1 session: `r.run(session, loss=loss, gradients=gradients, variables=variables, inputs=feed_dict)`.
To record what each layer read and gave at each step too, run the step within `with r.taps():`.
By command, with a function that makes the port (see `record_target`):

    python record_gradients.py my_module:build -o port.safetensors

and then, where there is JAX: `oracle verify port.safetensors`. The file is written whole or not at all. Its
format is described in gradient-oracle's docs/record-format.md.
"""

# Python 3.6 has no zip(strict=...); what an old TensorFlow may lack is looked up within a lambda.
# ruff: noqa: B905, PLW0108

import argparse
import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.util
import itertools
import json
import os
import platform
import shutil
import sys
import tempfile
import traceback

import numpy as np

FORMAT = 2
METADATA_KEY = "gradient-oracle"
MODES = ("eager", "function", "xla", "v1")
PACKAGES = ("tensorflow", "keras", "tf_keras", "tensorflow_addons", "numpy")
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
"""What can be recorded, with safetensors' names."""
FLOATS = ("float64", "float32", "float16", "bfloat16")


class RecorderError(Exception):
    """A call that cannot be recorded: what was wrong, and what to do. Nothing is written."""


class Slices:
    """A gradient as `tf.IndexedSlices` gave it: rows, the index that each adds to, the whole shape."""

    def __init__(self, values, indices, shape):
        self.values, self.indices, self.shape = values, indices, shape


@contextlib.contextmanager
def recording(path, model="port", mode=None, seed=0, weights="the port's own", data="the port's own"):
    """A context that gives a `Recorder` and, when it ends, writes `path`.

    If what is inside raises, the record says so (a port that raises is a finding) and the exception goes
    on. A `RecorderError`, Ctrl-C or a kill leaves no file, and an older file of that name as it was.

    Args:
        path: the file to write.
        model: what to call the port.
        mode: how it ran: `eager`, `function`, `xla` or `v1`. By default what TensorFlow shows: whether it
            executes eagerly, and `v1` if `Recorder.run` was called. It does not show a `tf.function`.
        seed: the seed of the weights and the batch, for people.
        weights: where the weights are from, for people.
        data: where the batch is from, for people.
    """
    if mode is not None and mode not in MODES:
        raise RecorderError(f"no mode {mode!r}; choose from {', '.join(MODES)}")
    folder = os.path.dirname(os.path.realpath(str(path)))
    if os.path.isdir(str(path)):
        raise RecorderError(f"{path}: is a folder; give the file to write")
    if not os.path.isdir(folder):
        raise RecorderError(f"{path}: there is no folder {folder}; make it first")
    recorder = Recorder(model=model, mode=mode, seed=seed, weights=weights, data=data)
    try:
        yield recorder
    except RecorderError:
        raise
    except Exception as error:
        recorder.failed(error)
        recorder.write(path)
        raise
    recorder.write(path)


class Recorder:
    """Collects what a port computed. Made by `recording`."""

    def __init__(self, model="port", mode=None, seed=0, weights="the port's own", data="the port's own"):
        self._about = {"model": str(model), "seed": int(seed), "weights": str(weights), "data": str(data)}
        self._mode, self._device, self._failure = mode, None, None
        self._weights, self._batch, self._outputs, self._gradients = {}, {}, {}, {}
        self._loss, self._has_loss = None, False
        self._steps, self._adjoints = {}, {}
        self._frozen = []
        self._named = []  # (the object a variable is, its name): kept, so that no id is used twice.

    def weights(self, *variables):
        """Record variables as they are now; call it before anything updates them.

        Args:
            variables: variables, lists of them, objects with `.variables`, or dictionaries from names of
                your own to variables or arrays. Two variables of one name become `kernel` and `kernel#2`.
        """
        for name, variable in _walk_variables(variables):
            if self._find(variable) is None:
                self._add_weight(
                    name, variable, _to_numpy(variable, f"weight {name or _variable_name(variable)}")
                )

    def inputs(self, *nested, **named):
        """Record the batch: arrays or tensors by name; dictionaries and tuples in it are joined by `/`.

        A ragged tensor becomes `<name>/values` and `<name>/row_splits`.
        """
        for tree in [*list(nested), named]:
            self._add(self._batch, tree, "input")

    def outputs(self, *nested, **named):
        """Record outputs, named as `inputs` are."""
        for tree in [*list(nested), named]:
            self._add(self._outputs, tree, "output")

    def loss(self, value):
        """Record the loss, a scalar."""
        if self._has_loss:
            raise RecorderError("the loss was given twice; record one step at a time")
        array = _to_numpy(value, "the loss")
        if array is None or array.shape != ():
            shape = None if array is None else list(array.shape)
            raise RecorderError(f"the loss is {shape}; give the scalar that was differentiated")
        self._loss, self._has_loss = array, True
        self._see_device(value)

    def gradients(self, gradients, variables=None):
        """Record gradients: None, tensors or `IndexedSlices`, as TensorFlow gave them.

        Args:
            gradients: a list, one for each of `variables`, or a dictionary by name.
            variables: the variables, in the same order. Those that `weights` has not recorded are
                recorded as they are now.
        """
        if hasattr(gradients, "items"):
            pairs = [(str(name), None, gradient) for name, gradient in gradients.items()]
        else:
            gradients, variables = list(gradients), None if variables is None else list(variables)
            if variables is None or len(gradients) != len(variables):
                number = "no" if variables is None else len(variables)
                raise RecorderError(
                    f"{len(gradients)} gradients and {number} variables; give one variable for each, or a "
                    "dictionary by name"
                )
            pairs = [
                (self._name(variable), variable, gradient) for variable, gradient in zip(variables, gradients)
            ]
        for name, variable, gradient in pairs:
            self._add_gradient(name, gradient, getattr(variable, "shape", None))

    @contextlib.contextmanager
    def taps(self, *models):
        """A context that records what each layer reads and gives at each step, and the gradients of those.

            r.weights(model.variables)
            with r.taps():
                loss, gradients = step(source, target)      # with the tape in it

        What it sees is in `Taps`. Every `tf.function` runs eagerly within it. The layers are those that own
        variables which `weights` has recorded, and are named by these: that of `encoder/cell/kernel` is
        `encoder/cell`.

        Args:
            models: what `weights` takes, if it was not called yet.

        Raises:
            RecorderError: if this TensorFlow is older than 2.4, or no layer with recorded variables was
                called.
        """
        self.weights(*models)
        names = _LayerNames(self._find)
        with Taps(names) as taps:
            yield taps
        values, adjoints = taps.collect()
        if not values:
            known = ", ".join(list(self._weights)[:4]) or "none"
            raise RecorderError(
                f"taps: no layer was called that owns a recorded variable (there are: {known}); call "
                "r.weights(model.variables) before, run the step within the context, and let Keras layers "
                "hold the variables"
            )
        self._steps.update(values)
        self._adjoints.update(adjoints)

    def run(self, session, loss, gradients, variables, outputs=None, inputs=None, weights=(), taps=None):
        """Run a v1 session and record it: the variables first, then everything else in one run.

        Args:
            session: a session whose variables have their values.
            loss: the scalar tensor.
            gradients: what `tf.gradients(loss, variables)` gave.
            variables: the variables.
            outputs: tensors by name.
            inputs: the `feed_dict`. Its arrays are recorded under the placeholders' names.
            weights: further variables to record, which are not trained.
            taps: tensors by a name of a step, or their names in the graph: `{"encoder/cell/h": "Exit_3:0"}`
                records `step/encoder/cell/h` and the gradient of the loss by it. One that the loss does not
                read, since it is a copy, has the gradient None.
        """
        for what, given in (("gradients", gradients), ("variables", variables), ("weights", weights)):
            if hasattr(given, "items"):
                raise RecorderError(f"run: {what} is a dictionary; give a list: each has a name of its own")
        self._mode = self._mode or "v1"
        gradients, variables = list(gradients), list(variables)
        feed = dict(inputs or {})
        further = [variable for _, variable in _walk_variables((weights,))]
        known = list(variables) + [one for one in further if all(one is not other for other in variables)]
        for variable, value in zip(known, session.run(known)):
            self._add_weight(None, variable, _to_numpy(value, f"weight {_variable_name(variable)}"))
        for key, value in feed.items():
            name = getattr(getattr(key, "op", None), "name", None) or _strip(str(key))
            self._add(self._batch, {name: value}, "input")
        tapped = {str(name): _find_tensor(session.graph, one) for name, one in dict(taps or {}).items()}
        adjoints = dict(zip(tapped, _differentiate(session.graph, loss, list(tapped.values()))))
        fetched = {
            "loss": loss,
            "outputs": dict(outputs or {}),
            "gradients": [gradient for gradient in gradients if gradient is not None],
            "taps": tapped,
            "adjoints": {name: adjoint for name, adjoint in adjoints.items() if adjoint is not None},
        }
        values = session.run(fetched, feed)
        for name, value in values["taps"].items():
            self._steps["step/" + name] = _to_numpy(value, f"tap {name}")
            adjoint = _to_numpy(values["adjoints"].get(name), f"the gradient of tap {name}")
            self._adjoints["gradient/step/" + name] = adjoint
        self.outputs(values["outputs"])
        self.loss(values["loss"])
        self._see_device(loss)
        computed = iter(values["gradients"])
        filled = [None if gradient is None else next(computed) for gradient in gradients]
        self.gradients(filled, variables)

    def failed(self, error):
        """Record that the port raised. Its tensors are left out."""
        # Keras appends the arguments of the call.
        whole = str(error).partition("Call arguments received")[0]
        said = [line for line in whole.splitlines() if line.strip()]
        text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
        message = said[-1].strip() if said else ""
        self._failure = {"type": type(error).__name__, "message": message, "traceback": text}

    def write(self, path):
        """Write what was recorded, whole or not at all."""
        if self._failure is None and not self._gradients:
            raise RecorderError("no gradients were given, so there is nothing to verify; call r.gradients")
        header, arrays = self._describe()
        _write_file(str(path), header, arrays)

    def _describe(self):
        """The record's header without its digest, and the arrays of the file."""
        weights = {f"weight/{name}": array for name, array in self._weights.items()}
        weights.update({f"batch/{name}": array for name, array in self._batch.items()})
        computed = list(self._steps.items())
        computed += [(f"output/{name}", array) for name, array in self._outputs.items()]
        computed += [("loss", self._loss)] if self._has_loss else []
        computed += [(f"gradient/{name}", gradient) for name, gradient in self._gradients.items()]
        computed += list(self._adjoints.items())
        if self._failure is not None:
            computed = []
        arrays, sparse = {}, {}
        for name, value in computed:
            if isinstance(value, Slices):
                sparse[name] = list(value.shape)
                arrays[f"sparse/{name}/values"] = value.values
                arrays[f"sparse/{name}/indices"] = value.indices
            elif value is not None:
                arrays[f"tensor/{name}"] = value
        about = dict(self._about)
        about.update(
            side="port",
            mode=self._mode or ("eager" if _executes_eagerly() else "v1"),
            dtype=self._find_dtype(arrays, weights),
            framework="tensorflow",
            versions=_find_versions(),
            python=platform.python_version(),
            device=self._device or _find_device(),
            case=_digest({}, weights),
            flags=_find_flags(),
        )
        arrays.update(weights)
        header = {
            "kind": "record",
            "format": FORMAT,
            "spec": None,
            "origin": about,
            "order": [name for name, _ in computed],
            "none": [name for name, value in computed if value is None],
            "nonfinite": sorted(name for name, array in arrays.items() if not _is_finite(array)),
            "variables": {f"gradient/{name}": [name] for name in self._gradients if self._failure is None},
            "failure": self._failure,
            "naming": "variable",
            "sparse": sparse,
            "frozen": [name for name in self._frozen if name not in self._gradients],
        }
        return header, arrays

    def _find_dtype(self, arrays, weights):
        policy = _find_flags().get("policy", "")
        others = ("tensor/output/", "tensor/step/")
        computed = [array for name, array in arrays.items() if not name.startswith(others)]
        dtypes = {array.dtype.name for array in computed or weights.values() if array.dtype.name in FLOATS}
        if len(dtypes) > 1 or policy.startswith("mixed_"):
            return "mixed"
        return dtypes.pop() if dtypes else "float32"

    def _name(self, variable):
        name = self._find(variable)
        if name is None:
            where = f"weight {_variable_name(variable)}"
            name = self._add_weight(None, variable, _to_numpy(variable, where))
        return name

    def _find(self, variable):
        return next((name for known, name in self._named if known is _identity(variable)), None)

    def _add_weight(self, name, variable, array):
        wanted = name or _variable_name(variable)
        if name is not None and name in self._weights:
            raise RecorderError(f"two weights are named {name!r}; give each a name of its own")
        number, unique = 1, wanted
        while unique in self._weights:
            number += 1
            unique = f"{wanted}#{number}"
        if array is None:
            raise RecorderError(f"the weight {unique} has no value")
        self._weights[unique] = array
        self._named.append((_identity(variable), unique))
        if getattr(variable, "trainable", True) is False:
            self._frozen.append(unique)
        return unique

    def _add_gradient(self, name, gradient, shape):
        if name in self._gradients:
            raise RecorderError(f"the gradient of {name!r} was given twice; record one step at a time")
        where = f"the gradient of {name}"
        if hasattr(gradient, "indices") and hasattr(gradient, "values"):
            dense = gradient.dense_shape
            if dense is not None:
                shape = _to_numpy(dense, where)
            elif shape is None and name in self._weights:
                shape = self._weights[name].shape
            if shape is None:
                raise RecorderError(f"{where}: slices that do not know their shape; give the variable too")
            values, indices = _to_numpy(gradient.values, where), _to_numpy(gradient.indices, where)
            self._gradients[name] = Slices(values, indices, [int(size) for size in shape])
            self._see_device(gradient.values)
        else:
            self._gradients[name] = None if gradient is None else _to_numpy(gradient, where)
            self._see_device(gradient)

    def _add(self, group, tree, kind):
        for name, value in _flatten(tree):
            if name in group:
                raise RecorderError(f"the {kind} {name!r} was given twice")
            array = _to_numpy(value, f"{kind} {name}")
            if array is None:
                raise RecorderError(f"the {kind} {name!r} is None; leave it out")
            group[name] = array

    def _see_device(self, tensor):
        if self._device is None and isinstance(getattr(tensor, "device", None), str):
            place = tensor.device.lower()
            if "gpu" in place or "tpu" in place:
                self._device = _find_device() if "gpu" in place else "tpu"
            elif "cpu" in place:
                self._device = "cpu"


class Taps:
    """Sees what Keras layers, cells and tfa's attention read and give, while it is active.

    Every tensor that a layer reads or gives is copied there (`tf.identity`), an LSTM's c and h each by
    itself, and `tf.GradientTape.gradient` of a scalar asks for the gradients of the copies too, in the same
    call. So the gradients are those of the program's own tape: None where it does not see. The copies change
    no number. The tape watches them, so that what a layer reads has a gradient even where no weight comes
    before it.

    Tensors are named `step/<layer>/<part>`:

    - of a cell `input`, `state_c`, `state_h` (the state before the step), `c` and `h` (what it gave, before
      any masking), [batch, time, width], the steps in the order of the loop. In a backward layer of Keras
      under a mask, the steps that the mask leaves out come last.
    - of an attention mechanism `memory`, masked, [batch, src_time, width], `query` [batch, time, width] and
      `alignments` [batch, time, src_time].
    - of another layer that owns variables and holds no layer `input`, unless it is integers, and `output`,
      [batch, time, width].

    A layer that runs again has its second run under `<layer>#2`.

    LSTM and GRU layers, which compute all steps in one function where they can, take the path of
    `keras.layers.RNN` while it is active, and `tf.function` runs eagerly. All is as before on leaving.

    Args:
        name_of: the name of a layer, or None for one that is to be left alone.

    Raises:
        RecorderError: on entering, if this TensorFlow is older than 2.4.
    """

    def __init__(self, name_of):
        self._name_of = name_of
        self._kinds = {}  # By id, with the layer, so that no id is used twice.
        self._calls, self._loops, self._tapes, self._asked = [], [], [], []
        self._memories, self._undo, self._is_time_major = {}, [], False

    def __enter__(self):
        import tensorflow as tf

        version = tuple(int(part) for part in tf.__version__.split(".")[:2])
        if version < (2, 4):
            raise RecorderError(
                f"taps: this is TensorFlow {tf.__version__}, and layers can be tapped from 2.4 on; in a v1 "
                "session give r.run(..., taps={name: tensor}), or leave them out"
            )
        self._tf = tf
        try:
            self._patch_all()
        except BaseException:
            self._restore()
            raise
        return self

    def __exit__(self, *_):
        self._restore()

    def collect(self):
        """What was seen: the tensors, and their gradients, None where nothing connects them to the loss.

        A gradient that is None at some steps only is zero there.
        """
        values, adjoints, runs, seen, names = {}, {}, {}, {}, {}
        for call in self._calls:
            # A layer's variables may be made by its first call, so it is named after the last.
            if id(call.layer) not in names:
                names[id(call.layer)] = self._name_of(call.layer)
                # So may the layers that it holds, and then what they do is recorded, not what it does.
                self._kinds[id(call.layer)] = (call.layer, _kind_of(call.layer))
        mechanisms = {
            names[key] for key, (_, kind) in self._kinds.items() if kind == "mechanism" and key in names
        }
        for call in self._calls:
            name, kind = names[id(call.layer)], self._find_kind(call.layer)
            # A mechanism's own layers are parts of it.
            if None not in (name, kind) and not (kind == "other" and name in mechanisms):
                # Outside of a loop, calls of other shapes or with a time axis are runs of their own.
                shapes = [tuple(part.shape) for part in call.parts.values()]
                has_time = call.loop is None and any(len(shape) > 2 for shape in shapes)
                key = (name, id(call if has_time else call.loop), str(shapes))
                runs.setdefault(key, []).append(call)
        rows = next((len(call.parts["h"]) for call in self._calls if "h" in call.parts), None)
        for (name, _, _), calls in runs.items():
            loop = calls[0].loop
            if loop is not None and loop.steps is not None and len(calls) == loop.steps + 1:
                del calls[0]  # Keras asks a cell first what its output is like.
            for part in calls[0].parts:
                found = [call for call in calls if part in call.parts]
                count = seen[name, part] = seen.get((name, part), 0) + 1
                whole = name if count == 1 else f"{name}#{count}"
                arrays = [call.parts[part].numpy() for call in found]
                values[f"step/{whole}/{part}"] = self._join(arrays, found[0], rows)
                if not any(part in call.taps for call in found):
                    continue
                slopes = [call.adjoint_of(part) for call in found]
                joined = None
                if any(slope is not None for slope in slopes):
                    filled = [
                        np.zeros_like(array) if slope is None else slope
                        for array, slope in zip(arrays, slopes)
                    ]
                    joined = self._join(filled, found[0], rows)
                adjoints[f"gradient/step/{whole}/{part}"] = joined
        return values, adjoints

    def _join(self, arrays, call, batch):
        """One array of the calls' arrays, [batch, time, width]."""
        if arrays[0].ndim <= 2 and not call.is_whole:
            joined = np.stack(arrays, axis=1)
            order = None if call.loop is None else call.loop.find_order(joined.shape)
            return joined if order is None else np.take_along_axis(joined, order[:, :, None], axis=1)
        whole = arrays[0]
        if call.is_whole or whole.ndim != 3 or batch is None:
            return whole
        rows, steps = whole.shape[:2]
        swapped = self._is_time_major if rows == steps else steps == batch
        return np.swapaxes(whole, 0, 1) if swapped else whole

    def _patch_all(self):
        tf = self._tf
        self._patch(tf.keras.layers.Layer, "__call__", self._call_layer)
        self._patch(tf.GradientTape, "gradient", self._differentiate)
        self._patch(tf.GradientTape, "__enter__", self._open_tape)
        self._patch(tf.GradientTape, "__exit__", self._close_tape)
        wrapper = sys.modules.get("tensorflow_addons.seq2seq.attention_wrapper")
        if wrapper is not None:
            self._patch(wrapper, "_prepare_memory", self._prepare_memory)
        eager = tf.config.functions_run_eagerly()
        tf.config.run_functions_eagerly(True)
        self._undo.append(lambda: tf.config.run_functions_eagerly(eager))

    def _patch(self, holder, name, replacement):
        """Let `replacement(original, ...)` stand for a function of a class or module."""
        own = vars(holder).get(name)
        original = getattr(holder, name)

        def call(*arguments, **options):
            return replacement(original, *arguments, **options)

        # Keras asks the signature of what it calls.
        call = functools.wraps(original)(call)
        setattr(holder, name, call)
        self._undo.append(lambda: delattr(holder, name) if own is None else setattr(holder, name, own))

    def _restore(self):
        while self._undo:
            self._undo.pop()()

    def _call_layer(self, original, layer, *arguments, **options):
        if not self._tf.executing_eagerly():
            return original(layer, *arguments, **options)
        if hasattr(layer, "return_sequences") and hasattr(layer, "cell"):
            return self._call_loop(original, layer, *arguments, **options)
        if callable(getattr(layer, "initialize", None)) and callable(getattr(layer, "step", None)):
            return self._call_decoder(original, layer, *arguments, **options)
        kind = self._find_kind(layer)
        first = arguments[0] if arguments else options.get("inputs")
        if kind is None or first is None:
            return original(layer, *arguments, **options)
        if kind == "mechanism":
            return self._call_mechanism(original, layer, *arguments, **options)
        call = _Call(layer, self._loops[-1] if self._loops else None)
        copy = self._tap(call, "input", first)
        if arguments:
            arguments = (copy, *arguments[1:])
        else:
            options["inputs"] = copy
        if kind == "cell":
            states = arguments[1] if len(arguments) > 1 else options.get("states", options.get("state"))
            for part, state in _name_states(self._tf, states):
                if _is_eager(state):
                    call.parts["state_" + part] = state
        given = original(layer, *arguments, **options)
        self._calls.append(call)
        if kind != "cell":
            return self._tap(call, "output", given)
        return self._tap_cell(call, given)

    def _tap_cell(self, call, given):
        """Copies of an output and the states; the output is the copy of h where it was h itself."""
        if not isinstance(given, tuple) or len(given) != 2:
            return given
        output, states = given
        copies = [(state, self._tap(call, part, state)) for part, state in _name_states(self._tf, states)]
        if not copies:
            return given
        output = next((copy for state, copy in copies if state is output), output)
        return output, self._tf.nest.pack_sequence_as(states, [copy for _, copy in copies])

    def _call_loop(self, original, layer, *arguments, **options):
        inputs = arguments[0] if arguments else options.get("inputs")
        first = inputs[0] if isinstance(inputs, (list, tuple)) else inputs
        if type(first).__name__ == "KerasTensor":  # A model that is being made: nothing is computed yet.
            return original(layer, *arguments, **options)
        mask = options.get("mask")
        mask = getattr(first, "_keras_mask", None) if mask is None else mask
        mask = mask[0] if isinstance(mask, (list, tuple)) else mask
        is_time_major = bool(getattr(layer, "time_major", False))
        self._is_time_major = self._is_time_major or is_time_major
        shape = getattr(first, "shape", None)
        steps = None if shape is None or len(shape) < 2 else shape[0 if is_time_major else 1]
        mask = None if mask is None else np.asarray(mask)
        mask = mask.T if mask is not None and is_time_major else mask
        loop = _Loop(steps, mask, bool(getattr(layer, "go_backwards", False)))
        fused = getattr(layer, "_could_use_gpu_kernel", None)
        if fused is not None:
            layer._could_use_gpu_kernel = False
        self._loops.append(loop)
        try:
            return original(layer, *arguments, **options)
        finally:
            self._loops.pop()
            if fused is not None:
                layer._could_use_gpu_kernel = fused

    def _call_decoder(self, original, layer, *arguments, **options):
        self._is_time_major = self._is_time_major or bool(getattr(layer, "output_time_major", False))
        self._loops.append(_Loop(None, None, False))
        try:
            return original(layer, *arguments, **options)
        finally:
            self._loops.pop()

    def _call_mechanism(self, original, layer, inputs, *arguments, **options):
        if options.get("setup_memory") or not getattr(layer, "_memory_initialized", True):
            return original(layer, inputs, *arguments, **options)
        call = _Call(layer, self._loops[-1] if self._loops else None)
        if isinstance(inputs, (list, tuple)) and _is_eager(inputs[0]):
            call.parts["query"] = inputs[0]
        self._see_memory(layer)
        given = original(layer, inputs, *arguments, **options)
        self._calls.append(call)
        if not isinstance(given, tuple) or len(given) != 2:
            return given
        alignments, state = given
        copy = self._tap(call, "alignments", alignments)
        return copy, copy if state is alignments else state

    def _prepare_memory(self, original, *arguments, **options):
        memory = original(*arguments, **options)
        call = _Call(None, None, is_whole=True)
        copy = self._tap(call, "memory", memory)
        if call.parts:
            self._memories[id(copy)] = call  # The call holds the copy, so that no id is used twice.
        return copy

    def _see_memory(self, mechanism):
        """Note whose memory it is that was prepared; one that was prepared before has no gradient."""
        memory = getattr(mechanism, "values", None)
        call = self._memories.get(id(memory))
        if call is None and _is_eager(memory):
            call = self._memories[id(memory)] = _Call(None, None, is_whole=True)
            call.parts["memory"] = memory
        if call is not None and call.layer is None:
            call.layer = mechanism
            self._calls.append(call)

    def _find_kind(self, layer):
        if id(layer) not in self._kinds:
            self._kinds[id(layer)] = (layer, _kind_of(layer))
        return self._kinds[id(layer)][1]

    def _tap(self, call, part, tensor):
        """A copy of a tensor, which is known by a call's part."""
        if not _is_eager(tensor) or not tensor.dtype.is_floating:
            return tensor
        copy = self._tf.identity(tensor)
        # Keras hands a mask on so, and the logits of a softmax to a cross-entropy.
        for name in ("_keras_mask", "_keras_logits"):
            if hasattr(tensor, name):
                setattr(copy, name, getattr(tensor, name))
        for tape in self._tapes:
            if getattr(tape, "_recording", True):
                tape.watch(copy)
        call.parts[part], call.taps[part] = copy, copy
        return copy

    def _open_tape(self, original, tape):
        opened = original(tape)
        self._tapes.append(tape)
        return opened

    def _close_tape(self, original, tape, *arguments):
        self._tapes = [one for one in self._tapes if one is not tape]
        return original(tape, *arguments)

    def _differentiate(self, original, tape, target, sources, *rest, **options):
        tf = self._tf
        targets = tf.nest.flatten(target)
        is_scalar = len(targets) == 1 and _is_eager(targets[0]) and targets[0].shape.rank == 0
        prepared = [call for call in self._memories.values() if call.layer is None]
        asked = [
            (call, part)
            for call in self._calls + prepared
            for part in call.taps
            if part not in call.adjoints or call.adjoints[part] is None
        ]
        if not (is_scalar and asked and tf.executing_eagerly()):
            return original(tape, target, sources, *rest, **options)
        tapped = [call.taps[part] for call, part in asked]
        gradients, adjoints = original(tape, target, [sources, tapped], *rest, **options)
        for (call, part), adjoint in zip(asked, adjoints):
            call.adjoints[part] = adjoint
        return gradients


class _Call:
    """One call of a layer: what it read and gave, by part; the copies in it, and their gradients."""

    def __init__(self, layer, loop, is_whole=False):
        self.layer, self.loop, self.is_whole = layer, loop, is_whole
        self.parts, self.taps, self.adjoints = {}, {}, {}

    def adjoint_of(self, part):
        adjoint = self.adjoints.get(part)
        return None if adjoint is None else self._to_dense(adjoint)

    @staticmethod
    def _to_dense(adjoint):
        if hasattr(adjoint, "indices") and hasattr(adjoint, "dense_shape"):
            dense = np.zeros([int(size) for size in adjoint.dense_shape], adjoint.values.numpy().dtype)
            np.add.at(dense, adjoint.indices.numpy(), adjoint.values.numpy())
            return dense
        return adjoint.numpy()


class _Loop:
    """One run of a layer that loops over time: its steps if they are known, its mask, its direction."""

    def __init__(self, steps, mask, is_backward):
        self.steps, self.mask, self.is_backward = steps, mask, is_backward

    def find_order(self, shape):
        """Of a backward loop under a mask, the order of steps [batch, time] with the masked ones last."""
        if self.mask is None or not self.is_backward or self.mask.shape != tuple(shape[:2]):
            return None
        return np.argsort(~self.mask[:, ::-1].astype(bool), axis=1, kind="stable")


class _LayerNames:
    """Layers' names by those of their variables: `encoder/cell` for the one with `encoder/cell/kernel`."""

    def __init__(self, find):
        self._find, self._named = find, []

    def __call__(self, layer):
        # Keras 3 keeps the state of random numbers in variables.
        names = [self._find(one) for one in layer.variables if "float" in str(one.dtype)]
        if not names or None in names:
            return None
        parts = [name.partition("#")[0].split("/")[:-1] for name in names]
        same = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*parts))
        shared = [level[0] for level in same] or [names[0] if len(names) == 1 else str(layer.name)]
        numbers = {name.partition("#")[2] for name in names}
        number = numbers.pop() if len(numbers) == 1 else ""
        name = "/".join(shared) + ("#" + number if number else "")
        taken = [other for one, other in self._named if one is not layer]
        unique, count = name, 1
        while unique in taken:
            count += 1
            unique = f"{name}#{count}"
        self._named.append((layer, unique))
        return unique


def _kind_of(layer):
    """`mechanism`, `cell` or `other`; None for a layer that holds layers, or variables of none."""
    if hasattr(layer, "setup_memory") and hasattr(type(layer), "alignments_size"):
        return "mechanism"
    flatten = getattr(layer, "_flatten_layers", None)
    if flatten is not None and any(True for _ in flatten(recursive=False, include_self=False)):
        return None
    return "cell" if hasattr(layer, "state_size") else "other"


def _name_states(tf, states):
    """Pairs of `c` or `h` and a state. Keras' order is [h, c]; TF1's tuples say theirs."""
    if states is None:
        return []
    if isinstance(states, tuple) and hasattr(states, "_fields"):
        return list(zip(states._fields, states))
    flat = tf.nest.flatten(states)
    return list(zip(("h", "c"), flat)) if len(flat) <= 2 else []


def _is_eager(value):
    return type(value).__name__ == "EagerTensor"


def _find_tensor(graph, tensor):
    """A tensor of a graph, of which a name may be given."""
    if not isinstance(tensor, str):
        return tensor
    try:
        return graph.get_tensor_by_name(tensor if ":" in tensor else tensor + ":0")
    except (KeyError, ValueError):
        raise RecorderError(f"run: the graph has no tensor {tensor!r}; give the tensor itself") from None


def _differentiate(graph, loss, tensors):
    """The gradients of the loss by tensors of a v1 graph."""
    if not tensors:
        return []
    with graph.as_default():
        gradients = _tensorflow().compat.v1.gradients(loss, tensors)
    # What is sparse cannot be fetched with the others.
    dense = _tensorflow().convert_to_tensor
    return [gradient if gradient is None else dense(gradient) for gradient in gradients]


def _walk_variables(nested):
    """Pairs of a name of the user's own, or None, and a variable."""
    for one in nested:
        if hasattr(one, "items"):
            for name, variable in one.items():
                yield str(name), variable
        elif isinstance(one, (list, tuple)):
            for pair in _walk_variables(one):
                yield pair
        elif hasattr(one, "variables") and not callable(one.variables):
            for pair in _walk_variables(one.variables):
                yield pair
        elif isinstance(one, (np.ndarray, np.generic)):
            raise RecorderError("an array has no name; give the weights as {name: array}")
        else:
            yield None, one


def _identity(variable):
    """The object by which a variable is known: Keras 3 and automatic casts wrap TensorFlow's."""
    inner = getattr(variable, "_value", None)
    if inner is not None and hasattr(variable, "path"):
        return inner
    kind = type(variable).__name__
    return getattr(variable, "_variable", variable) if kind.startswith("AutoCast") else variable


def _variable_name(variable):
    """A variable's name without `:0`; of one of Keras 3 its path, since its name is short."""
    for name in (getattr(variable, "path", None), getattr(variable, "name", None)):
        if isinstance(name, str) and name:
            return _strip(name)
    raise RecorderError(f"a {type(variable).__name__} is no variable; give variables, or {{name: array}}")


def _strip(name):
    head, _, number = name.rpartition(":")
    return head if head and number.isdigit() else name


def _flatten(tree, path=""):
    """The leaves of nested dictionaries, tuples and lists of tensors, by paths."""
    if hasattr(tree, "items"):
        children = [(str(name), child) for name, child in tree.items()]
    elif isinstance(tree, tuple) and hasattr(tree, "_fields"):
        children = list(zip(tree._fields, tree))
    elif isinstance(tree, (tuple, list)) and not _is_numbers(tree):
        children = [(str(number), child) for number, child in enumerate(tree)]
    elif hasattr(tree, "flat_values") and hasattr(tree, "nested_row_splits"):
        splits = list(tree.nested_row_splits)
        names = ["row_splits"] if len(splits) == 1 else [f"row_splits_{i}" for i in range(len(splits))]
        children = [("values", tree.flat_values), *list(zip(names, splits))]
    elif hasattr(tree, "indices") and hasattr(tree, "values") and hasattr(tree, "dense_shape"):
        children = [(part, getattr(tree, part)) for part in ("values", "indices", "dense_shape")]
    elif path:
        yield path, tree
        return
    else:
        raise RecorderError(f"a {type(tree).__name__} has no name here; give it as name=tensor")
    for name, child in children:
        yield from _flatten(child, path + "/" + name if path else name)


def _is_numbers(value):
    """Whether it is a number, or a list of lists of them, which is an array."""
    if isinstance(value, (tuple, list)):
        return all(_is_numbers(child) for child in value)
    return isinstance(value, (int, float, bool))


def _to_numpy(value, where):
    """The array of a value that was computed, in a memory of its own; None stays None."""
    if value is None:
        return None
    if hasattr(value, "numpy") and callable(value.numpy):
        try:
            array = np.asarray(value.numpy())
        except (AttributeError, NotImplementedError, RuntimeError, ValueError):
            array = None  # A tensor or variable of a graph, or of a tf.function that is being traced.
    elif isinstance(value, (np.ndarray, np.generic, int, float, bool, list, tuple)):
        array = np.array(value)
    else:
        array = None
    if array is None:
        raise RecorderError(
            f"{where} has no value here (a {type(value).__name__} of a graph); return it from the "
            "tf.function, or in a v1 session use r.run(session, ...)"
        )
    if array.dtype.name not in DTYPES:
        kind = "text" if array.dtype.kind in "OSU" else str(array.dtype)
        raise RecorderError(f"{where} is {kind}, which cannot be recorded; give numbers")
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_finite(array):
    if array.dtype.name == "bfloat16":
        array = array.astype(np.float32)
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _tensorflow():
    return sys.modules.get("tensorflow")


def _ask(question, default):
    """What a function of TensorFlow's says, where this TensorFlow has it."""
    try:
        return question()
    except Exception:  # An old TensorFlow lacks it in one of many ways.
        return default


def _executes_eagerly():
    tf = _tensorflow()
    return tf is None or bool(_ask(tf.executing_eagerly, False))


def _find_versions():
    found = {name.replace("_", "-"): getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
    tf = _tensorflow()
    found.setdefault("keras", None)
    if tf is not None and found["keras"] is None:
        found["keras"] = _ask(lambda: tf.keras.__version__, None)
    return {name: str(version) for name, version in found.items() if version}


def _find_device():
    tf = _tensorflow()
    gpus = _ask(lambda: tf.config.list_physical_devices("GPU"), None)
    if gpus is None:
        gpus = _ask(lambda: tf.config.experimental.list_physical_devices("GPU"), None)
    if gpus is None:
        return "gpu" if _ask(lambda: tf.test.is_gpu_available(), False) else "cpu"
    if not gpus:
        return "cpu"
    name = _ask(lambda: tf.config.experimental.get_device_details(gpus[0])["device_name"], "")
    return f"gpu ({name})" if name else "gpu"


def _find_flags():
    """Precision and determinism settings that are in force, by name."""
    tf = _tensorflow()
    if tf is None:
        return {}
    experimental = _ask(lambda: tf.config.experimental, None)
    tf32 = _ask(lambda: experimental.tensor_float_32_execution_enabled(), None)
    deterministic = _ask(lambda: experimental.is_op_determinism_enabled(), None)
    if deterministic is None:
        asked = os.environ.get("TF_DETERMINISTIC_OPS", "").lower() in ("1", "true")
        deterministic = True if asked else None
    policy = _ask(lambda: tf.keras.mixed_precision.global_policy().name, None)
    if policy is None:
        policy = _ask(lambda: tf.keras.mixed_precision.experimental.global_policy().name, None)
    flags = {
        "tf32": _switch(tf32),
        "determinism": _switch(deterministic),
        "xla": _ask(lambda: str(tf.config.optimizer.get_jit() or "off"), None),
        "policy": policy,
        "floatx": _ask(lambda: tf.keras.backend.floatx(), None),
        "eager": _switch(_executes_eagerly()),
        "xla_flags": os.environ.get("TF_XLA_FLAGS"),
        "onednn": os.environ.get("TF_ENABLE_ONEDNN_OPTS"),
    }
    return {name: str(flag) for name, flag in flags.items() if flag is not None}


def _switch(value):
    return None if value is None else ("on" if value else "off")


def _bytes_of(array):
    """An array's bytes, row-major; copied only where its memory is not so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _digest(header, arrays):
    """BLAKE2b of a header and of named arrays; see gradient-oracle's docs/record-format.md."""
    digest = hashlib.blake2b(json.dumps(header, sort_keys=True).encode(), digest_size=16)
    for name in sorted(arrays):
        array = arrays[name]
        shape = tuple(int(size) for size in array.shape)
        digest.update((f"{name}\0{_dtype_text(array)}\0{shape}\0").encode())
        digest.update(_bytes_of(array))
    return digest.hexdigest()


def _dtype_text(array):
    return "<V2" if array.dtype.name == "bfloat16" else array.dtype.newbyteorder("<").str


def _write_file(path, header, arrays):
    """Write a safetensors file: the length of its head, the head as JSON, then the arrays."""
    if sys.byteorder != "little":
        raise RecorderError("this machine is big-endian, and the arrays of a record are not")
    text = json.dumps(dict(header, digest=_digest(header, arrays)))
    head, offset = {"__metadata__": {METADATA_KEY: text}}, 0
    # The widest first, so that each begins at a multiple of its size.
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    for name in names:
        array = arrays[name]
        head[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": [int(size) for size in array.shape],
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
    encoded = json.dumps(head).encode()
    encoded += b" " * (-len(encoded) % 8)
    with _replacing(path) as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for name in names:
            file.write(_bytes_of(arrays[name]))


@contextlib.contextmanager
def _replacing(path):
    """A file that takes its name only when it is whole.

    Where the system can, it has no name at all until then, so that a killed process leaves nothing.
    """
    path = os.path.realpath(path)  # Through a link, so that it goes on pointing where it did.
    folder, name = os.path.split(path)
    if os.path.isdir(path):
        raise RecorderError(f"{path}: is a folder; give a file")
    temporary, descriptor = None, None
    try:
        descriptor = _open_nameless(folder)
        if descriptor is None:
            descriptor, temporary = tempfile.mkstemp(dir=folder, prefix="." + name + ".")
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if temporary is None:
                temporary = _name_file(file.fileno(), folder, name)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        raise RecorderError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)


def _open_nameless(folder):
    """A file in a folder that has no name yet; None where the system has none of that kind."""
    if not os.path.isdir("/proc/self/fd"):
        return None
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except (AttributeError, OSError):
        return None


def _name_file(descriptor, folder, name):
    """Give a nameless file a temporary name beside the one that it shall have; or copy it to one."""
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    if os.path.exists(temporary):
        os.unlink(temporary)
    # Given a folder, Python calls linkat, which follows the link in /proc; without one it does not.
    place = os.open(folder, os.O_RDONLY)
    try:
        os.link(f"/proc/self/fd/{descriptor}", temporary, src_dir_fd=place, follow_symlinks=True)
    except OSError:
        # Some systems make nameless files and name none.
        with open(os.dup(descriptor), "rb") as source, open(temporary, "wb") as copy:
            source.seek(0)
            shutil.copyfileobj(source, copy)
            copy.flush()
            os.fsync(copy.fileno())
    finally:
        os.close(place)
    return temporary


_PARTS = (
    "batch",
    "models",
    "variables",
    "loss",
    "gradients",
    "name",
    "weights",
    "session",
    "outputs",
    "inputs",
    "reference",
)


def record_target(target, path, mode="eager", precision=None, seed=0):
    """Record the port that a function makes: what `python record_gradients.py` does.

    The function gives a dictionary, or an object with attributes:

    - `batch`: arrays by name.
    - `models`: objects with `.variables`, by name or in a list; or `variables`: the variables, by name or in
      a list. Without either, those that the loss reads.
    - `loss`: `loss(batch)` of tensors, which gives the scalar, or the pair of it and of outputs by name. Or a
      loss of Keras, for one model that is called on `batch["x"]` and held to `batch["y"]` (with
      `batch["sample_weight"]`, if it is there).
    - `gradients`, if the port computes its own: `gradients(batch)` gives the loss, the gradients, and perhaps
      outputs by name. The gradients are by name in a dictionary, or one for each variable that is trained.
    - `name`, if it has one; `weights`: `"own"`, which is the default, or `"random"` to record it with normal
      numbers for every weight.

    A `LivePort` of gradient-oracle is such an object; its `reference` plays no part here. A port in a v1
    session gives `session`, and what `Recorder.run` takes: `loss`, `gradients`, `variables`, `inputs`, and
    perhaps `outputs`.

    Args:
        target: `package.module:function` or `path/to/file.py:function`, perhaps with arguments, as in
            `my_module:build("lstm", units=3)`.
        path: the file to write.
        mode: `eager`, `function` (the step within one `tf.function`) or `xla` (that, compiled).
        precision: `f64` or `f32`: what Keras makes weights of, and what the batch is cast to. By default
            both are left as they are.
        seed: of NumPy and TensorFlow.
    """
    build = load_target(target)
    import tensorflow as tf

    floatx = {"f64": "float64", "f32": "float32", None: None}[precision]
    np.random.seed(seed)  # noqa: NPY002 (the port may draw from it)
    if tf.executing_eagerly():
        # In TensorFlow 1 this would make a graph, after which eager execution cannot be enabled.
        tf.compat.v1.set_random_seed(seed)
    if floatx is not None:
        tf.keras.backend.set_floatx(floatx)
    port = build()
    given = dict(port) if isinstance(port, dict) else {name: getattr(port, name, None) for name in _PARTS}
    unknown = sorted(str(name) for name in set(given) - set(_PARTS))
    if unknown:
        raise RecorderError(
            "{} gives {}; it may give {}".format(target, ", ".join(unknown), ", ".join(_PARTS))
        )
    given = {name: part for name, part in given.items() if part is not None}
    wanted = ("loss", "gradients", "variables") if "session" in given else ("batch", "loss")
    for part in wanted:
        if part not in given and not (part == "loss" and "gradients" in given):
            raise RecorderError(
                "{} gives no {!r}; it gives {}".format(target, part, ", ".join(given) or "nothing")
            )
    name = given.get("name") or target
    if "session" in given:
        with recording(path, model=name, mode="v1", seed=seed) as recorder:
            optional = {part: given.get(part) for part in ("outputs", "inputs")}
            recorder.run(given["session"], given["loss"], given["gradients"], given["variables"], **optional)
        return
    if not tf.executing_eagerly():
        raise RecorderError(
            f"{target}: TensorFlow does not execute eagerly here; call "
            "tf.compat.v1.enable_eager_execution() in the module, or give a `session` and what Recorder.run "
            "takes"
        )
    drawn = f"random, seed {seed}" if given.get("weights") == "random" else "the port's own"
    with recording(path, model=name, mode=mode, seed=seed, weights=drawn, data=name) as recorder:
        _record_port(recorder, tf, given, mode, floatx, seed)


def _record_port(recorder, tf, given, mode, floatx, seed):
    batch = {}
    for name, values in given["batch"].items():
        array = _to_numpy(values, f"batch[{name!r}]")
        batch[name] = array.astype(floatx) if floatx and array.dtype.kind == "f" else array
    recorder.inputs(batch)
    tensors = {name: tf.constant(array) for name, array in batch.items()}
    loss, own = _make_loss(given), given.get("gradients")
    # The port makes its variables at its first step; XLA can make none.
    first = loss if own is None else own
    with tf.GradientTape() as tape:
        (first if mode == "eager" else tf.function(first))(tensors)
    held = given.get("variables")
    if held is None and "models" in given:
        models = given["models"]
        held = list(models.values()) if hasattr(models, "items") else models
    if held is None and own is not None:
        raise RecorderError(
            "the port computes its own gradients, so give `models` or `variables`, in their order"
        )
    if held is None:
        held = list(tape.watched_variables())
    pairs = list(_walk_variables((held,)))
    if not pairs:
        raise RecorderError("the port has no variables; give `models` or `variables`")
    if given.get("weights") == "random":
        _draw_weights([variable for _, variable in pairs], seed)
    recorder.weights(held)
    trained = []
    for _, variable in pairs:
        again = any(_identity(variable) is _identity(one) for one in trained)
        if getattr(variable, "trainable", True) and not again:
            trained.append(variable)

    def step(tensors):
        if own is not None:
            result = tuple(own(tensors))
            return result if len(result) == 3 else (*result, {})
        with tf.GradientTape() as tape:
            value, outputs = _split(loss(tensors))
        return value, tape.gradient(value, trained), outputs

    value, gradients, outputs = _compile(tf, step, mode)(tensors)
    recorder.outputs(outputs)
    recorder.loss(value)
    recorder.gradients(gradients, None if hasattr(gradients, "items") else trained)


def _compile(tf, step, mode):
    if mode == "eager":
        return step
    if mode == "function":
        return tf.function(step)
    try:
        return tf.function(step, jit_compile=True)
    except TypeError:
        return tf.function(step, experimental_compile=True)  # Before TensorFlow 2.5.


def _make_loss(given):
    """The loss as a function of the batch."""
    loss = given["loss"] if "loss" in given else given["gradients"]
    if not hasattr(loss, "reduction"):
        return loss
    models = given.get("models", ())
    models = list(models.values()) if hasattr(models, "items") else list(models)
    missing = [name for name in ("x", "y") if name not in given["batch"]]
    if len(models) != 1 or missing:
        names = ", ".join(given["batch"])
        raise RecorderError(
            f"a loss of Keras needs one model, batch['x'] and batch['y']; there are {len(models)} models, "
            f"and the batch has {names}; or give a function as the loss"
        )

    def keras_loss(batch):
        return loss(batch["y"], models[0](batch["x"]), sample_weight=batch.get("sample_weight"))

    return keras_loss


def _split(result):
    if isinstance(result, tuple) and len(result) == 2 and hasattr(result[1], "items"):
        return result[0], dict(result[1])
    return result, {}


def _draw_weights(variables, seed):
    """Give each variable normal numbers: matrices with deviation 1/sqrt(rows), all others 0.5."""
    generator = np.random.RandomState(seed)
    for variable in variables:
        shape = tuple(int(size) for size in variable.shape)
        if not np.issubdtype(_to_numpy(variable, "a weight").dtype, np.floating):
            continue
        spread = float(max(shape[0], 1)) ** -0.5 if len(shape) > 1 else 0.5
        variable.assign(spread * generator.standard_normal(shape))


def load_target(target):
    """The function that `module:attribute` or `file.py:attribute` names, with its arguments, if any.

    Modules are found as from a script in the current folder, and the attribute may be dotted. Arguments are
    literals: `my_module:build("lstm", units=3)`.
    """
    place, colon, rest = target.partition(":")
    if os.name == "nt" and len(place) == 1:
        drive, (place, colon, rest) = place, rest.partition(":")
        place = drive + ":" + place
    try:
        node = ast.parse(rest.strip(), mode="eval").body if place and colon else None
        arguments, options = [], {}
        if isinstance(node, ast.Call):
            arguments = [ast.literal_eval(argument) for argument in node.args]
            options = {word.arg: ast.literal_eval(word.value) for word in node.keywords}
            node = node.func
        names = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        names.insert(0, node.id)
    except (AttributeError, SyntaxError, ValueError):
        raise RecorderError(
            f"{target!r} names no function; give package.module:function or path/to/file.py:function, "
            "perhaps with literal arguments, as in my_module:build('lstm', units=3)"
        ) from None
    sys.path.insert(0, os.getcwd())
    if place.endswith(".py"):
        if not os.path.isfile(place):
            raise RecorderError(f"{place}: no such file")
        sys.path.insert(0, os.path.dirname(os.path.abspath(place)))
        name = "recorded_" + os.path.splitext(os.path.basename(place))[0]
        spec = importlib.util.spec_from_file_location(name, place)
        found = importlib.util.module_from_spec(spec)
        sys.modules[name] = found
        spec.loader.exec_module(found)
    else:
        try:
            found = importlib.import_module(place)
        except ImportError as error:
            if getattr(error, "name", None) not in (place, place.partition(".")[0]):
                raise
            raise RecorderError(f"no module {place!r} here; give a .py file, or run beside it") from None
    for name in names:
        if not hasattr(found, name):
            raise RecorderError("{} has no {}".format(place, ".".join(names)))
        found = getattr(found, name)
    if not callable(found):
        raise RecorderError(f"{target} is a {type(found).__name__}; give a function")
    return lambda: found(*arguments, **options)


def main(arguments=None):
    """Record a port by command. Exits with 1 if the port raised, and with 2 if nothing was recorded."""
    parser = argparse.ArgumentParser(
        description="Record what a TensorFlow port computes, for `oracle verify`.",
        epilog="What the function gives: see record_target in this file.",
    )
    parser.add_argument("target", help="my_module:build or path/to/file.py:build, perhaps with arguments")
    parser.add_argument("-o", "--output", required=True, help="the file to write")
    parser.add_argument("--mode", choices=MODES[:3], default="eager", help="how TensorFlow runs the step")
    parser.add_argument("--precision", choices=("f64", "f32"), help="by default as the port is")
    parser.add_argument("--seed", type=int, default=0, help="of NumPy and TensorFlow")
    options = parser.parse_args(arguments)
    try:
        record_target(options.target, options.output, options.mode, options.precision, options.seed)
    except RecorderError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except SystemExit as error:
        sys.stderr.write(f"error: {options.target} called sys.exit({error.code}); take it out\n")
        return 2
    except Exception:
        traceback.print_exc()
        if os.path.isfile(options.output):
            sys.stderr.write(f"{options.output}: records that the port raised this\n")
        return 1
    sys.stdout.write(f"{options.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
