"""From a functional ATen graph to one C++ function.

Every node becomes a number in a variable, a strided view of a buffer, or a member of a fused loop
(``loops``). Views cost nothing. Buffers lie in one workspace whose layout is fixed at compile
time, so that the function allocates nothing. An operation without a rule raises
:class:`Unsupported`, and the caller runs the model eagerly instead.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from probkit.infer.native.expressions import POINTWISE, c_type, literal
from probkit.infer.native.loops import Access, Loop, Reduction
from probkit.infer.native.values import (
    Member,
    Number,
    Value,
    View,
    dense_strides,
    same_elements,
    view_of,
)

__all__ = ["Lowering", "Unsupported", "count_of", "meta_of"]

_VIEWS = (
    *("view", "_unsafe_view", "reshape", "expand", "permute", "transpose", "t", "slice"),
    *("select", "unsqueeze", "squeeze", "diagonal", "as_strided", "detach", "alias"),
)
_ALIGN = 64


class Unsupported(Exception):
    """The graph holds something that has no native form; the message says what."""


class Lowering:
    """Collects the body of ``evaluate`` while the nodes of a graph are visited in order.

    Args:
        inputs: pointer expression of each placeholder and constant node, by name.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.factors: set[str] = set()  # buffers of Cholesky factors: zero above the diagonal
        self.prepare: list[str] = []
        self.workspace = 0
        self.values: dict[str, Any] = {}
        self._loops: dict[int, Loop] = {}
        self._members: dict[tuple[int, int], str] = {}
        self._final: dict[tuple[int, int], Value] = {}
        self._loop_of_shape: dict[tuple[int, ...], int] = {}
        self._count = 0

    # -- values --------------------------------------------------------------------------------

    def name(self, prefix: str) -> str:
        """A new C++ name."""
        self._count += 1
        return f"{prefix}{self._count}"

    def buffer(self, shape: Sequence[int], dtype: torch.dtype) -> View:
        """A new contiguous buffer of the workspace."""
        kind = c_type(dtype)
        if kind is None:
            raise Unsupported(f"tensors of {dtype}")
        size = dtype.itemsize
        for n in shape:
            size *= n
        place, self.workspace = self.workspace, -(-(self.workspace + size) // _ALIGN) * _ALIGN
        name = self.name("b")
        self.lines.append(f"{kind}* __restrict {name} = ({kind}*)(workspace + {place});")
        return View(name, tuple(shape), dtype, dense_strides(tuple(shape)))

    def resolve(self, value: Value) -> Value:
        """A member of a closed loop as what it became."""
        while isinstance(value, Member) and (value.loop, value.index) in self._final:
            found = self._final[value.loop, value.index]
            value = _reshaped(found, value.shape)
        return value

    def settled(self, value: Any) -> Number | View:
        """The value outside loops: closes the loop that makes it."""
        value = self.resolve(value)
        if isinstance(value, Member):
            self.close(value.loop, keep=value.index)
            value = self.resolve(value)
        assert not isinstance(value, Member)
        return value

    def memory(self, value: Any) -> View:
        """The value as a view of memory."""
        value = self.settled(value)
        if isinstance(value, View):
            return value
        target = self.buffer(value.shape, value.dtype)
        self.copy(value, target)
        return target

    def number(self, value: Any) -> str:
        """C++ expression of a one-element value."""
        value = self.settled(value)
        if isinstance(value, Number):
            return value.name
        return f"{value.name}[{value.offset}]"

    # -- loops ---------------------------------------------------------------------------------

    def close(self, loop_id: int, keep: int | None = None) -> None:
        """Write a loop; members that are still needed are stored."""
        loop = self._loops.pop(loop_id)
        self._loop_of_shape = {s: i for s, i in self._loop_of_shape.items() if i != loop_id}
        for (owner, index), node_name in list(self._members.items()):
            if owner != loop_id:
                continue
            del self._members[owner, index]
            if node_name in self._needed or index == keep:
                shape, dtype = self._member_meta[owner, index]
                target = self.buffer(shape, dtype)
                loop.stores.append((index, target.name))
                self._final[owner, index] = target
        self.lines.extend(loop.write())

    def pointwise(self, node: Any, write: Callable[..., str], operands: list[Any]) -> Value:
        """An elementwise operation: in a variable if it has one element, else in a loop."""
        shape, dtype = meta_of(node)
        kind = c_type(dtype)
        if kind is None:
            raise Unsupported(f"tensors of {dtype}")
        uniform = all(isinstance(o, str) or isinstance(self.resolve(o), Number) for o in operands)
        if uniform or count_of(shape) == 1:
            inputs = [self.number(o) if not isinstance(o, str) else o for o in operands]
            name = self.name("s")
            self.lines.append(f"const {kind} {name} = {write(*inputs)};")
            return Number(name, shape, dtype)
        key = tuple(n for n in shape if n != 1)
        ready = [self._settle_for(o, key) for o in operands]
        loop_id = self._open(key)
        loop = self._loops[loop_id]
        inputs = [self._operand(loop, loop_id, o, shape) for o in ready]
        loop.body.append((kind, write(*inputs)))
        index = len(loop.body) - 1
        self._members[loop_id, index] = node.name
        self._member_meta[loop_id, index] = (shape, dtype)
        return Member(loop_id, index, shape, dtype)

    def _settle_for(self, operand: Any, key: tuple[int, ...]) -> Any:
        """Close loops whose results a loop over ``key`` cannot take from a register."""
        if isinstance(operand, str):
            return operand
        operand = self.resolve(operand)
        if isinstance(operand, Member):
            inside = self._loop_of_shape.get(key) == operand.loop
            if not (inside and same_elements(operand.shape, key)):
                return self.settled(operand)
        return operand

    def _open(self, key: tuple[int, ...]) -> int:
        if key not in self._loop_of_shape:
            loop_id = self._count = self._count + 1
            self._loops[loop_id] = Loop(key)
            self._loop_of_shape[key] = loop_id
        return self._loop_of_shape[key]

    def _operand(self, loop: Loop, loop_id: int, operand: Any, shape: tuple[int, ...]) -> str:
        if isinstance(operand, str):
            return operand
        operand = self.resolve(operand)
        if isinstance(operand, Member):
            assert operand.loop == loop_id
            return f"m{operand.index}"
        if isinstance(operand, Number):
            return operand.name
        return loop.load(_access(operand, shape))

    def reduction(self, node: Any, source: Any, dims: Sequence[int], maximum: bool) -> Value:
        """Sum (or maximum) over ``dims``, fused with the loop that makes its operand."""
        out_shape, dtype = meta_of(node)
        kind = c_type(dtype)
        source = self.resolve(source)
        shape = source.shape
        if isinstance(source, Number) or count_of(shape) == 1:
            count = 1 if maximum else count_of(shape) // max(count_of(out_shape), 1)
            name = self.name("s")
            self.lines.append(f"const {kind} {name} = {self.number(source)} * {count};")
            return Number(name, out_shape, dtype)
        reduced = {d % len(shape) for d in dims} if len(dims) else set(range(len(shape)))
        key = tuple(n for n in shape if n != 1)
        source = self._settle_for(source, key)
        loop_id = self._open(key)
        loop = self._loops[loop_id]
        if isinstance(source, Member):
            index = source.index
        else:
            loop.body.append(
                (str(c_type(source.dtype)), self._operand(loop, loop_id, source, shape))
            )
            index = len(loop.body) - 1
        kept = tuple(1 if d in reduced else n for d, n in enumerate(shape))
        strides = tuple(
            0 if d in reduced else s for d, s in enumerate(dense_strides(kept)) if shape[d] != 1
        )
        if count_of(out_shape) == 1:
            name = self.name("s")
            self.lines.append(f"{kind} {name};")
            loop.reductions.append(Reduction(index, "", strides, str(kind), maximum, name))
            result: Value = Number(name, out_shape, dtype)
        else:
            target = self.buffer(out_shape, dtype)
            loop.reductions.append(Reduction(index, target.name, strides, str(kind), maximum))
            result = target
        # the sum is complete once the loop has run
        self.close(loop_id)
        return result

    # -- the graph -----------------------------------------------------------------------------

    def run(self, graph: fx.Graph, given: dict[str, Value]) -> list[Number | View]:
        """Visit all nodes; returns the values of the graph's outputs."""
        from probkit.infer.native.operations import OPERATIONS

        self.values = dict(given)
        self._needed: set[str] = set()
        self._member_meta: dict[tuple[int, int], tuple[tuple[int, ...], torch.dtype]] = {}
        nodes = list(graph.nodes)
        last_use = _last_uses(nodes)
        for position, node in enumerate(nodes):
            if node.name in self.values or node.op != "call_function" or "static" in node.meta:
                if node.op == "output":
                    break
                continue
            self._needed = {name for name, last in last_use.items() if last >= position}
            name = _operation(node)
            if name == "getitem":
                self.values[node.name] = self.values[node.args[0].name][node.args[1]]
            elif name in OPERATIONS:
                self.values[node.name] = OPERATIONS[name](self, node)
            elif name in _VIEWS:
                self.values[node.name] = self.view(node)
            elif name in POINTWISE:
                self.values[node.name] = self.elementwise(node, name)
            else:
                raise Unsupported(f"the operation {node.target}")
        self._needed = set(last_use)
        outputs = nodes[-1].args[0]
        return [self.settled(self.values[o.name]) for o in outputs]

    def value(self, argument: Any) -> Any:
        """Value of an argument of a node; numbers become literals."""
        if isinstance(argument, fx.Node):
            return self.values[argument.name]
        if isinstance(argument, bool | int | float):
            return literal(argument)
        raise Unsupported(f"an argument of type {type(argument).__name__}")

    def elementwise(self, node: Any, name: str) -> Value:
        """A node of the table of elementwise operations."""
        if node.kwargs.get("rounding_mode") is not None:
            raise Unsupported("division with rounding")
        positional = [a for a in node.args if a is not None]
        if name == "clamp" and len(node.args) > 1 and node.args[1] is None:
            name = "clamp_max"
        operands = [self.value(a) for a in positional]
        if name in ("add", "sub") and "alpha" in node.kwargs:
            operands.append(literal(node.kwargs["alpha"]))
        if name == "clamp" and "max" in node.kwargs and len(operands) == 1:
            name = "clamp_max"
        for key in ("min", "max"):
            if name.startswith("clamp") and node.kwargs.get(key) is not None:
                operands.append(self.value(node.kwargs[key]))
        if name == "eq" and self._same(*operands):
            return Number("true", *meta_of(node))
        if name == "div":
            return self.pointwise(node, lambda a, b: f"((double){a} / {b})", operands)
        return self.pointwise(node, POINTWISE[name], operands)

    def _same(self, one: Any, other: Any) -> bool:
        """Whether two operands are one value; for NaN, too, which the loss shows anyway."""
        if isinstance(one, str) or isinstance(other, str):
            return False
        one, other = self.resolve(one), self.resolve(other)
        if isinstance(one, Member) and isinstance(other, Member):
            return (one.loop, one.index) == (other.loop, other.index)
        if isinstance(one, Number) and isinstance(other, Number):
            return one.name == other.name
        same_shape = one.shape == other.shape
        return same_shape and isinstance(one, View) and one == other

    def view(self, node: Any) -> Value:
        """A view operation, without cost where the strides allow it."""
        source = self.resolve(self.values[node.args[0].name])
        shape, _ = meta_of(node)
        if isinstance(source, Number):
            return Number(source.name, shape, source.dtype)
        turned = _operation(node) in ("permute", "transpose", "t")
        same = same_elements(source.shape, shape) and not turned
        if isinstance(source, Member) and same:
            return Member(source.loop, source.index, shape, source.dtype)
        view = self.memory(source)

        def apply(x: Tensor) -> Any:
            return node.target(x, *node.args[1:], **node.kwargs)

        found = view_of(view, apply)
        if found is None:
            found = view_of(self.dense(view), apply)
        if found is None:
            raise Unsupported(f"the view {node.target}")
        return found

    def dense(self, view: View) -> View:
        """A contiguous copy, or the view itself if it is contiguous."""
        if view.strides == dense_strides(view.shape):
            return view
        target = self.buffer(view.shape, view.dtype)
        self.copy(view, target)
        return target

    def copy(self, source: Number | View, target: View) -> None:
        """Copy ``source``, broadcast, to a strided target."""
        kind = str(c_type(target.dtype))
        indices = [f"i{k}" for k in range(len(target.shape))]
        for index, size in zip(indices, target.shape, strict=True):
            self.lines.append(f"for (int64_t {index} = 0; {index} < {size}; ++{index})")
        left = f"{target.name}[{_subscript(target.strides, target.offset)}]"
        if isinstance(source, Number):
            right = source.name
        else:
            access = _aligned(source, target.shape)
            right = f"{source.name}[{_subscript(access, source.offset)}]"
        self.lines.append(f"{left} = ({kind}){right};")


def _operation(node: Any) -> str:
    if node.target is operator.getitem:
        return "getitem"
    name = getattr(node.target, "__name__", str(node.target))
    return name.split(".")[0]


def meta_of(node: Any) -> tuple[tuple[int, ...], torch.dtype]:
    value = node.meta["val"]
    return tuple(value.shape), value.dtype


def count_of(shape: Sequence[int]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def _aligned(view: View, shape: Sequence[int]) -> tuple[int, ...]:
    """Strides of a view broadcast to a shape."""
    lead = len(shape) - len(view.shape)
    own = tuple(
        0 if n == 1 and m != 1 else s
        for n, s, m in zip(view.shape, view.strides, shape[lead:], strict=True)
    )
    return (0,) * lead + own


def _access(view: View, shape: tuple[int, ...]) -> Access:
    strides = _aligned(view, shape)
    kept = tuple(s for s, n in zip(strides, shape, strict=True) if n != 1)
    return Access(view.name, kept, view.offset)


def _subscript(strides: Sequence[int], offset: int) -> str:
    terms = [f"i{k} * {s}" for k, s in enumerate(strides) if s]
    return " + ".join([*terms, str(offset)])


def _reshaped(value: Value, shape: tuple[int, ...]) -> Value:
    """A settled member under the shape (sizes of one apart) that it is seen with."""
    if value.shape == shape:
        return value
    if isinstance(value, View):
        return View(value.name, shape, value.dtype, dense_strides(shape), value.offset)
    raise AssertionError("only stored members change their shape")


def _last_uses(nodes: Sequence[Any]) -> dict[str, int]:
    """Position of each value's last use, through views and tuple entries."""
    last: dict[str, int] = {}
    for position, node in enumerate(nodes):
        for source in node.all_input_nodes:
            last[source.name] = position
    for node in reversed(nodes):
        if node.op == "call_function" and (_operation(node) in (*_VIEWS, "getitem")):
            source = node.all_input_nodes[0]
            last[source.name] = max(last.get(source.name, -1), last.get(node.name, -1))
    return last
