"""A mirrored model: its spec, its Flax module, its weights, and its calls as the port has them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from oracle.bridge.mirror.aliases import Homes, check_dtypes, find_homes, variable_key
from oracle.bridge.mirror.gradients import densify
from oracle.bridge.mirror.pieces import Piece
from oracle.bridge.mirror.refusals import MirrorError
from oracle.bridge.mirror.spec import MirroredPart, MirrorSpec
from oracle.errors import BridgeError
from oracle.steps.leaves import flatten_leaves, nest_leaves


class Mirror:
    """The Flax counterpart of live TensorFlow objects. It holds the weights as they were when it was made.

    Attributes:
        spec: what the objects are, with no framework in it.
        module: the Flax module.
        params: the weights as nested dictionaries of NumPy arrays, a tied leaf once.
        variables: for each leaf's path, the attribute paths of the variables that hold it.
        tensors: the live variables by attribute path: what to differentiate by in TensorFlow.
        children: the mirrors of the parts, which are attributes too: `mirror.decoder.cell`.
        notes: what a person should know, such as regularisers, which `apply` leaves out.
    """

    spec: MirrorSpec
    module: nn.Module
    params: dict[str, Any]
    variables: Mapping[str, tuple[str, ...]]
    tensors: Mapping[str, Any]
    notes: tuple[str, ...]
    _piece: Piece
    _path: str
    _homes: Homes
    _values: dict[int, np.ndarray]

    def __init__(
        self, piece: Piece, *, path: str = "", read: Callable[[Any], np.ndarray] = np.asarray
    ) -> None:
        homes = find_homes(piece)
        values = {name: read_variable(variable, read) for name, variable in homes.variables.items()}
        check_dtypes(values)
        leaves = homes.layout.to_leaves(values)
        for leaf in leaves.values():
            leaf.setflags(write=False)
        holders = {
            leaf: tuple(dict.fromkeys(b.variable for b in homes.layout.blocks if b.leaf == leaf))
            for leaf in homes.layout.leaves
        }
        spec = MirrorSpec(
            describe_part(piece),
            dict(homes.ties),
            tuple(sorted(homes.transposed)),
            tuple(sorted(homes.frozen)),
        )
        # The parts hold the weights of this moment, too.
        held = {variable_key(v): values[name] for name, v in homes.variables.items()}
        vars(self).update(
            _piece=piece,
            _path=path,
            _homes=homes,
            _values=held,
            spec=spec,
            module=piece.module,
            params=nest_leaves(leaves),
            variables=MappingProxyType(holders),
            tensors=MappingProxyType(dict(homes.variables)),
            notes=tuple(note for _, _, part in piece.walk() for note in part.notes),
        )

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"a mirror is frozen: {name} cannot be set; pass other weights as `params`")

    @functools.cached_property
    def children(self) -> Mapping[str, Mirror]:
        """The mirrors of the parts, by name."""
        found = {}
        for child in self._piece.children:
            path = f"{self._path}{child.attribute or child.leaves}/"
            found[child.leaves] = Mirror(
                child.piece, path=path, read=lambda variable: self._values[variable_key(variable)]
            )
        return MappingProxyType(found)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        by_attribute = {child.attribute: child.leaves for child in self._piece.children}
        if name in self.children or name in by_attribute:
            return self.children[by_attribute.get(name, name)]
        if name in self._piece.methods:
            return functools.partial(self._run, self._piece.methods[name])
        known = [*self.children, *self._piece.methods]
        raise AttributeError(
            f"the mirror of {self._where} has no part and no method {name!r}; "
            f"it has {', '.join(known) or 'none'}"
        )

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self.children, *self._piece.methods})

    def __repr__(self) -> str:
        sizes = sum(int(np.prod(shape)) for shape in self.spec.leaf_shapes().values())
        return f"Mirror({self._piece.kind}, {len(self.variables)} leaves, {sizes} weights)"

    @property
    def _where(self) -> str:
        return f"{self._path.rstrip('/') or 'the model'} ({self._piece.kind})"

    def apply(self, *args: Any, params: Any = None, **kwargs: Any) -> Any:
        """Call the mirrored object: its own signature, and results in its own structure.

        Args:
            args: the arguments of the object's call, NumPy or JAX arrays.
            params: the weights, by default `self.params`; to differentiate by. `self.params` or a part of
                `expand(params)` of the whole.
            kwargs: the further arguments of the object's call.

        Raises:
            MirrorError: if what the call computes is not known, or `params` are another model's.
        """
        if self._piece.call is None:
            raise MirrorError(f"mirror: {self._where}: {self._piece.refusal}")
        return self._run(self._piece.call, *args, params=params, **kwargs)

    def _run(self, call: Callable[..., Any], /, *args: Any, params: Any = None, **kwargs: Any) -> Any:
        whole = self.expand(self.params if params is None else params)
        if not (call is self._piece.call and self._piece.keeps_numpy):
            args, kwargs = to_jax((args, kwargs))
        return nn.apply(functools.partial(_call_bound, call), self.module)({"params": whole}, args, kwargs)

    def expand(self, params: Any) -> Any:
        """`params` with every tied leaf at each place where it is used: what `module` takes.

        Raises:
            MirrorError: if a leaf is missing, or there is one too many.
        """
        return to_jax(nest_leaves(self._homes.expand(flatten(params))))

    def gradients_to_leaves(self, gradients: Any) -> dict[str, np.ndarray | None]:
        """Carry TensorFlow's gradients to the leaves, by path. None stays None; sparse ones are summed.

        Args:
            gradients: by the names of `tensors`, as `tape.gradient(loss, dict(mirror.tensors))` gives them,
                or pairs (gradient, variable) as an optimizer takes them.

        Raises:
            MirrorError: if one is missing, is no variable's of this model, or is malformed.
        """
        named = gradients if isinstance(gradients, Mapping) else self._name_gradients(gradients)
        tensors, frozen = self._homes.variables, set(self._homes.frozen)
        if unknown := sorted(named.keys() - tensors.keys()):
            raise MirrorError(
                f"mirror: {', '.join(unknown)} is no variable of the model; it has {', '.join(tensors)}"
            )
        missing = [name for name, v in tensors.items() if name not in named and v.trainable]
        if missing:
            raise MirrorError(
                f"mirror: no gradient was given for {', '.join(missing)}; give None if it is None"
            )
        dense = {
            name: densify(named.get(name), tuple(variable.shape), where=name)
            for name, variable in tensors.items()
        }
        leaves = self._homes.layout.gradients_to_leaves(dense)
        return {leaf: gradient for leaf, gradient in leaves.items() if leaf not in frozen}

    def _name_gradients(self, pairs: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        names = {variable_key(variable): name for name, variable in self._homes.variables.items()}
        named = {}
        for gradient, variable in pairs:
            if variable_key(variable) not in names:
                raise MirrorError(
                    f"mirror: {variable.name} is no variable of the model, "
                    f"which has {', '.join(names.values())}"
                )
            named[names[variable_key(variable)]] = gradient
        return named

    def assign(self, params: Any) -> None:
        """Write `params` into the live variables: all of them, or none if one does not fit.

        Raises:
            BridgeError: if a leaf is missing, superfluous, misshapen or not finite in its dtype.
        """
        leaves = flatten(params)
        whole = self._homes.expand(leaves)
        for leaf, first in self._homes.ties.items():
            turned = (
                np.asarray(whole[first]).T if leaf in self._homes.transposed else np.asarray(whole[first])
            )
            if not np.array_equal(np.asarray(whole[leaf]), turned):
                raise MirrorError(
                    f"mirror: {leaf} and {first} are one weight, but were given different values"
                )
        own = {leaf: np.asarray(whole[leaf]) for leaf in self._homes.layout.leaves}
        values = self._homes.layout.to_variables(own)
        targets = {}
        for name, variable in self._homes.variables.items():
            dtype = np.dtype(variable.dtype.base_dtype.as_numpy_dtype)
            if values[name].dtype != dtype and values[name].dtype.kind != dtype.kind:
                raise BridgeError(f"mirror: {name} is {dtype}, but the leaf is {values[name].dtype}")
            targets[name] = values[name].astype(dtype)
        for name, variable in self._homes.variables.items():
            variable.assign(targets[name])


def read_variable(variable: Any, read: Callable[[Any], Any]) -> np.ndarray:
    """A variable's value, a copy of its own."""
    try:
        return np.array(read(variable))
    except (NotImplementedError, ValueError, TypeError, RuntimeError) as error:
        raise MirrorError(
            f"mirror: the value of {variable.name} cannot be read here ({type(error).__name__}); mirror in "
            "eager mode, outside tf.function, and give `session=` for a TF1 graph"
        ) from error


def describe_part(piece: Piece) -> MirroredPart:
    """The spec of one piece and of those within it."""
    return MirroredPart(
        kind=piece.kind,
        options={name: _plain(value) for name, value in piece.options.items()},
        leaves={leaf: tuple(shape) for leaf, shape in piece.own_layout().leaves.items()},
        parts={child.leaves: describe_part(child.piece) for child in piece.children},
        attributes={
            child.leaves: child.attribute
            for child in piece.children
            if child.attribute and child.attribute != child.leaves
        },
    )


def flatten(params: Any) -> dict[str, Any]:
    """The leaves of `params` by path.

    Raises:
        MirrorError: if they are no nested dictionaries.
    """
    if not isinstance(params, Mapping):
        raise MirrorError(f"mirror: params are nested dictionaries of arrays, not a {type(params).__name__}")
    return flatten_leaves(params)


def to_jax(structure: Any) -> Any:
    """Every NumPy array in a structure as a JAX array."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, (np.ndarray, np.generic)) else x, structure)


def _call_bound(call: Callable[..., Any], bound: Any, args: tuple, kwargs: dict) -> Any:
    return call(bound, *args, **kwargs)


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return value
