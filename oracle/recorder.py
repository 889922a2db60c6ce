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
import hashlib
import importlib
import importlib.util
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

    def run(self, session, loss, gradients, variables, outputs=None, inputs=None, weights=()):
        """Run a v1 session and record it: the variables first, then everything else in one run.

        Args:
            session: a session whose variables have their values.
            loss: the scalar tensor.
            gradients: what `tf.gradients(loss, variables)` gave.
            variables: the variables.
            outputs: tensors by name.
            inputs: the `feed_dict`. Its arrays are recorded under the placeholders' names.
            weights: further variables to record, which are not trained.
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
        fetched = {
            "loss": loss,
            "outputs": dict(outputs or {}),
            "gradients": [gradient for gradient in gradients if gradient is not None],
        }
        values = session.run(fetched, feed)
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
        computed = [(f"output/{name}", array) for name, array in self._outputs.items()]
        computed += [("loss", self._loss)] if self._has_loss else []
        computed += [(f"gradient/{name}", gradient) for name, gradient in self._gradients.items()]
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
        computed = [array for name, array in arrays.items() if not name.startswith("tensor/output/")]
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
