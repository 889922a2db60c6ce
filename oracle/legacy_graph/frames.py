"""The loops and conds of TF1 control flow, and which of them every node is in.

A TF1 loop is a frame: values go in by `Enter`, circle through `Merge`, `Switch` and `NextIteration` while
`LoopCond` is true, and go out by `Exit`. A cond is a pair of `Switch` outputs per value, of which one is
dead. Neither is written down in a graph as such; both follow from how its nodes are joined.
Source: the executor's rules in `tensorflow/core/common_runtime/executor.cc` and the white paper's 4.4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from oracle.legacy_graph.errors import GraphError
from oracle.legacy_graph.graph import Graph, Node, Tensor
from oracle.legacy_graph.loops import (
    Consumers,
    Loop,
    find_consumers,
    find_loops,
    is_loop_merge,
    is_loop_switch,
    pass_identities,
)

ENTERS = frozenset({"Enter", "RefEnter"})
EXITS = frozenset({"Exit", "RefExit"})
SWITCHES = frozenset({"Switch", "RefSwitch"})
MERGES = frozenset({"Merge", "RefMerge"})

MAXIMUM_DEPTH = 64


@dataclass(frozen=True)
class Frame:
    """The context of a loop, known by its frame's name."""

    name: str


@dataclass(frozen=True)
class Branch:
    """The context of one branch of a cond.

    Args:
        predicate: the tensor that decides.
        side: 1 for the branch taken when it is true, 0 for the other.
        parent: the context of the cond, or None.
    """

    predicate: Tensor
    side: int
    parent: Frame | Branch | None


Context = Frame | Branch | None


@dataclass(frozen=True)
class ControlFlow:
    """The TF1 control flow of a graph.

    Args:
        loops: the loops by their frames' names, in the graph's order.
        parents: of every frame, the context that its loop is in.
        branches: the branches of conds.
        contexts: of every node, the context it is in; an `Exit` is in its loop.
    """

    loops: Mapping[str, Loop]
    parents: Mapping[str, Context]
    branches: tuple[Branch, ...]
    contexts: Mapping[str, Context]

    def parent(self, context: Frame | Branch) -> Context:
        """The context around a context, or None."""
        return context.parent if isinstance(context, Branch) else self.parents[context.name]

    def path(self, context: Context) -> tuple[Frame | Branch, ...]:
        """The contexts from the outermost to this one."""
        found: list[Frame | Branch] = []
        while context is not None:
            found.append(context)
            context = self.parent(context)
        return tuple(reversed(found))


def find_control_flow(graph: Graph, *, where: str) -> ControlFlow:
    """Find every loop and cond.

    Raises:
        GraphError: if a loop lacks a part, a node joins values of two frames, or frames contain
            themselves; the message names the node.
    """
    consumers = find_consumers(graph)
    loops = find_loops(graph, consumers, where=where)
    order = sort_nodes(graph, where=where)
    parents: dict[str, Context] = dict.fromkeys(loops)
    # The parent of a frame is the deepest context that anything enters it from, which a value that enters
    # it early may not be in: so again, until nothing changes.
    for _ in range(MAXIMUM_DEPTH):
        walk = _Walk(graph, loops, parents, consumers, where)
        for name in order:
            walk.visit(graph.nodes[name])
        if walk.found == parents:
            if walk.error is not None:
                raise walk.error
            return ControlFlow(loops, parents, tuple(walk.branches), walk.nodes)
        parents = walk.found
    raise GraphError("G303", f"{where}: its frames are nested in one another without end; export it anew")


def sort_nodes(graph: Graph, *, where: str) -> list[str]:
    """The nodes, each after what it reads, except for what goes round a loop.

    Raises:
        GraphError: if there is a cycle that is no loop.
    """
    readers = defaultdict(list)
    waiting = {}
    for node in graph.nodes.values():
        sources = {
            name
            for name, _ in node.inputs
            if not (node.op in MERGES and graph.nodes[name].op in ("NextIteration", "RefNextIteration"))
        } | set(node.controls)
        waiting[node.name] = len(sources)
        for source in sources:
            readers[source].append(node.name)
    ready = [name for name, count in waiting.items() if not count]
    for name in ready:
        for reader in readers[name]:
            waiting[reader] -= 1
            if not waiting[reader]:
                ready.append(reader)
    if len(ready) < len(graph.nodes):
        stuck = next(name for name, count in waiting.items() if count)
        raise GraphError(
            "G303", f"{where}: node {stuck!r} is in a cycle that is no loop of TF1's; export the graph anew"
        )
    return ready


class _Walk:
    """One pass over the nodes, given what is known of the frames' parents."""

    def __init__(
        self,
        graph: Graph,
        loops: Mapping[str, Loop],
        parents: Mapping[str, Context],
        consumers: Consumers,
        where: str,
    ) -> None:
        self.graph, self.loops, self.parents, self.consumers, self.where = (
            graph,
            loops,
            parents,
            consumers,
            where,
        )
        self.found: dict[str, Context] = dict.fromkeys(loops)
        self.branches: dict[Branch, None] = {}
        self.nodes: dict[str, Context] = {}
        self._bases: dict[str, Context] = {}
        # Held back: while the frames' parents are not known, what looks malformed need not be.
        self.error: GraphError | None = None

    def visit(self, node: Node) -> None:
        if node.op in MERGES and is_loop_merge(node, self.graph):
            entries = [tensor for tensor in node.inputs if self.graph.nodes[tensor[0]].op in ENTERS]
            if len(entries) != 1:
                self._note(node.name, f"reads {len(entries)} Enter beside a NextIteration, not one")
            self._place(node, self._context_of(entries[0]) if entries else None)
            return
        sources = [(tensor, self._context_of(tensor)) for tensor in node.inputs]
        waits = [((name, 0), self._after(name)) for name in node.controls]
        if node.op in MERGES:
            self._place(node, self._common(context for _, context in sources))
            return
        context = self._deepest(node, [*sources, *waits])
        if node.op in ENTERS:
            frame = node.text("frame_name")
            self._check(node, context, sources)
            self.found[frame] = self._deeper(node, self.found[frame], context)
            self._place(node, Frame(frame))
        elif node.op in SWITCHES and not is_loop_switch(node, self.graph):
            self._check(node, context, sources)
            used = [side for side in (0, 1) if self.consumers.get((node.name, side))]
            self._bases[node.name] = context
            self.nodes[node.name] = self._branch(node, used[0], context) if len(used) == 1 else context
        else:
            self._check(node, context, sources)
            self._place(node, context)

    def _place(self, node: Node, context: Context) -> None:
        self.nodes[node.name] = self._bases[node.name] = context

    def _branch(self, node: Node, side: int, context: Context) -> Branch:
        # tf.cond reads the predicate through an Identity for its values, and directly for its pivots.
        branch = Branch(pass_identities(self.graph, node.inputs[1]), side, context)
        self.branches[branch] = None
        return branch

    def _context_of(self, tensor: Tensor) -> Context:
        """The context in which an output is used."""
        node = self.graph.nodes[tensor[0]]
        if node.op in SWITCHES and not is_loop_switch(node, self.graph):
            return self._branch(node, min(tensor[1], 1), self._bases[node.name])
        return self._after(node.name)

    def _after(self, name: str) -> Context:
        context = self._bases[name]
        if self.graph.nodes[name].op in EXITS:
            if not isinstance(context, Frame):
                self._note(name, "leaves a loop that it is not in")
                return context
            return self.parents[context.name]
        return context

    def _path(self, context: Context) -> tuple[Frame | Branch, ...]:
        found: list[Frame | Branch] = []
        while context is not None:
            found.append(context)
            if len(found) > MAXIMUM_DEPTH:
                raise GraphError(
                    "G303",
                    f"{self.where}: its loops and conds are nested more than {MAXIMUM_DEPTH} deep, or in "
                    "themselves; export the graph anew",
                )
            context = context.parent if isinstance(context, Branch) else self.parents[context.name]
        return tuple(reversed(found))

    def _deepest(self, node: Node, sources: Iterable[tuple[Tensor, Context]]) -> Context:
        deepest: Context = None
        for _, context in sources:
            deepest = self._deeper(node, deepest, context)
        return deepest

    def _deeper(self, node: Node, one: Context, other: Context) -> Context:
        """The deeper of two contexts, of which one must be within the other."""
        if one == other:
            return one
        first, second = self._path(one), self._path(other)
        if first[: len(second)] == second:
            return one
        if second[: len(first)] == first:
            return other
        self._note(node.name, f"joins {describe(one)} and {describe(other)}, neither within the other")
        return one if len(first) >= len(second) else other

    def _common(self, contexts: Iterable[Context]) -> Context:
        paths = [self._path(context) for context in contexts]
        common: Context = None
        for level in zip(*paths, strict=False):
            if len(set(level)) > 1:
                break
            common = level[0]
        return common

    def _check(self, node: Node, context: Context, sources: Iterable[tuple[Tensor, Context]]) -> None:
        """Every value that a node reads must be in its frame, into which only `Enter` brings it."""
        frame = self._frame(context)
        for (name, _), source in sources:
            if self._frame(source) != frame:
                self._note(
                    node.name,
                    f"is in {describe(Frame(frame)) if frame else 'no loop'} and reads {name!r}, which no "
                    "Enter brings there",
                )

    def _frame(self, context: Context) -> str | None:
        while isinstance(context, Branch):
            context = context.parent
        return None if context is None else context.name

    def _note(self, name: str, what: str) -> None:
        node = self.graph.nodes[name]
        self.error = self.error or GraphError(
            "G303", f"{self.where}: node {name!r} ({node.op}) {what}; export the graph anew"
        )


def describe(context: Context) -> str:
    """A context in words."""
    if context is None:
        return "the graph itself"
    if isinstance(context, Frame):
        return f"the loop {context.name!r}"
    return f"the {'true' if context.side else 'false'} branch of the cond on {context.predicate[0]!r}"
