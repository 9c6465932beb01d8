"""Operations with rules of their own: reductions, matrices, indexing, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from probkit.infer.native.expressions import literal
from probkit.infer.native.lowering import Lowering, Unsupported, count_of, meta_of
from probkit.infer.native.matrices import MATRIX_OPERATIONS
from probkit.infer.native.values import Number, Value, View, must_view

__all__ = ["OPERATIONS", "RANDOM"]


def _sum(code: Lowering, node: Any) -> Value:
    dims = node.args[1] if len(node.args) > 1 and node.args[1] is not None else ()
    return code.reduction(node, code.values[node.args[0].name], list(dims), False)


def _mean(code: Lowering, node: Any) -> Value:
    total = _sum(code, node)
    source = meta_of(node.args[0])[0]
    count = count_of(source) / max(count_of(meta_of(node)[0]), 1)
    return code.pointwise(node, lambda x: f"({x} / {literal(count)})", [total])


def _amax(code: Lowering, node: Any) -> Value:
    dims = node.args[1] if len(node.args) > 1 else ()
    return code.reduction(node, code.values[node.args[0].name], list(dims), True)


def _split(code: Lowering, node: Any) -> list[Value]:
    view = code.memory(code.values[node.args[0].name])
    sizes = node.args[1]
    dim = node.args[2] if len(node.args) > 2 else 0
    parts: list[Value] = []
    start = 0
    for size in sizes:
        parts.append(_narrow(view, dim, start, size))
        start += size
    return parts


def _unbind(code: Lowering, node: Any) -> list[Value]:
    view = code.memory(code.values[node.args[0].name])
    dim = node.args[1] if len(node.args) > 1 else 0
    return [must_view(view, partial(_select, dim, i)) for i in range(view.shape[dim])]


def _cat(code: Lowering, node: Any) -> Value:
    shape, dtype = meta_of(node)
    sources = [code.settled(code.values[n.name]) for n in node.args[0]]
    target = code.buffer(shape, dtype)
    dim = (node.args[1] if len(node.args) > 1 else 0) % max(len(shape), 1)
    start = 0
    for source in sources:
        size = source.shape[dim]
        code.copy(source, _narrow(target, dim, start, size))
        start += size
    return target


def _index(code: Lowering, node: Any) -> Value:
    """``x[:, i, j, ...]`` with index tensors for neighbouring dimensions."""
    source = code.memory(code.values[node.args[0].name])
    shape, dtype = meta_of(node)
    target = code.buffer(shape, dtype)
    place, rest = _place(code, source, *_neighbours(node.args[1]), shape)
    code.lines.append(
        f"{target.name}[{_flat(target.strides, shape)}] = {source.name}[{place} + {rest}];"
    )
    return target


def _index_put(code: Lowering, node: Any) -> Value:
    source = code.settled(code.values[node.args[0].name])
    shape, dtype = meta_of(node)
    first, indices = _neighbours(node.args[1])
    update = code.memory(code.values[node.args[2].name])
    accumulate = len(node.args) > 3 and bool(node.args[3])
    target = code.buffer(shape, dtype)
    code.copy(source, target)
    lead = torch.broadcast_shapes(*(meta_of(i)[0] for i in indices))
    whole = (*shape[:first], *lead, *shape[first + len(indices) :])
    strides = _strides_for(update, whole)
    place, rest = _place(code, target, first, indices, whole)
    sign = "+=" if accumulate else "="
    new = f"{update.name}[{_dot_index(strides, update.offset)}]"
    code.lines.append(f"{target.name}[{place} + {rest}] {sign} {new};")
    return target


def _neighbours(indices: Any) -> tuple[int, list[Any]]:
    """The first dimension that is indexed, and the index tensors from there on."""
    given = [k for k, i in enumerate(indices) if i is not None]
    first, last = given[0], given[-1]
    if len(given) != last - first + 1:
        raise Unsupported("indexing of dimensions that are no neighbours")
    return first, list(indices[first : last + 1])


def _place(
    code: Lowering, source: View, first: int, indices: list[Any], shape: tuple[int, ...]
) -> tuple[str, str]:
    """Open loops over ``shape``; the address by index tensors, and by the other dimensions."""
    views = [code.memory(code.values[i.name]) for i in indices]
    lead = torch.broadcast_shapes(*(v.shape for v in views))
    for k, size in enumerate(shape):
        code.lines.append(f"for (int64_t i{k} = 0; i{k} < {size}; ++i{k})")
    terms = []
    indexed = zip(views, source.strides[first:], source.shape[first:], strict=False)
    for view, stride, size in indexed:
        if view.dtype != torch.int64:
            raise Unsupported(f"an index of {view.dtype}")
        at = _dot_index(_strides_for(view, lead), view.offset, first)
        terms.append(f"wrap({view.name}[{at}], {size}) * {stride}")
    rest = [f"i{k} * {s}" for k, s in enumerate(source.strides[:first])]
    after = source.strides[first + len(views) :]
    rest += [f"i{first + len(lead) + k} * {s}" for k, s in enumerate(after)]
    return " + ".join(terms), " + ".join([*rest, str(source.offset)])


def _index_select(code: Lowering, node: Any) -> Value:
    source = code.memory(code.values[node.args[0].name])
    shape, dtype = meta_of(node)
    dim = node.args[1] % len(shape)
    index = code.memory(code.values[node.args[2].name])
    target = code.buffer(shape, dtype)
    for k, size in enumerate(shape):
        code.lines.append(f"for (int64_t i{k} = 0; i{k} < {size}; ++i{k})")
    terms = []
    for k, stride in enumerate(source.strides):
        at = f"i{k}"
        if k == dim:
            step = index.strides[0] if index.shape else 0
            at = f"wrap({index.name}[{index.offset} + i{k} * {step}], {source.shape[k]})"
        terms.append(f"{at} * {stride}")
    code.lines.append(
        f"{target.name}[{_flat(target.strides, shape)}] = "
        f"{source.name}[{' + '.join([*terms, str(source.offset)])}];"
    )
    return target


def _scatter_into(view: Callable[..., Any]) -> Callable[[Lowering, Any], Value]:
    """``slice_scatter`` and its like: a copy of the base with a view of it overwritten."""

    def lower(code: Lowering, node: Any) -> Value:
        base = code.settled(code.values[node.args[0].name])
        source = code.settled(code.values[node.args[1].name])
        shape, dtype = meta_of(node)
        target = code.buffer(shape, dtype)
        code.copy(base, target)
        part = must_view(target, lambda x: view(x, *node.args[2:], **node.kwargs))
        code.copy(source, part)
        return target

    return lower


def _pad(code: Lowering, node: Any) -> Value:
    source = code.settled(code.values[node.args[0].name])
    widths = list(node.args[1])
    shape, dtype = meta_of(node)
    target = code.buffer(shape, dtype)
    code.copy(Number(literal(node.args[2] if len(node.args) > 2 else 0.0), (), dtype), target)

    def inner(x: Tensor) -> Tensor:
        for k in range(len(widths) // 2):
            dim = x.dim() - 1 - k
            x = x.narrow(dim, widths[2 * k], x.shape[dim] - widths[2 * k] - widths[2 * k + 1])
        return x

    if min(widths) < 0:
        if max(widths) > 0:
            raise Unsupported("padding and cutting at once")
        widths = [-w for w in widths]
        return must_view(code.memory(source), inner)
    code.copy(source, must_view(target, inner))
    return target


def _cumsum(code: Lowering, node: Any) -> Value:
    shape, dtype = meta_of(node)
    source = code.settled(code.values[node.args[0].name])
    target = code.buffer(shape, dtype)
    code.copy(source, target)
    dim = node.args[1] % len(shape)
    step, size = target.strides[dim], shape[dim]
    outer, inner = count_of(shape[:dim]), count_of(shape[dim + 1 :])
    code.lines.append(
        f"for (int64_t i = 0; i < {outer}; ++i) for (int64_t j = 1; j < {size}; ++j) "
        f"for (int64_t k = 0; k < {inner}; ++k) {target.name}[i * {size * step} + j * {step} + k]"
        f" += {target.name}[i * {size * step} + (j - 1) * {step} + k];"
    )
    return target


def _random(draw: str, scaled: bool = False) -> Callable[[Lowering, Any], Value]:
    """Independent draws into a new buffer, shifted and scaled by the node's two numbers."""

    def lower(code: Lowering, node: Any) -> Value:
        shape, dtype = meta_of(node)
        numbers = [a for a in node.args if isinstance(a, int | float)]
        low, high = (*numbers, *((0.0, 1.0)[len(numbers) :]))[:2]
        expression = draw
        if scaled and (low, high) != (0.0, 1.0):
            factor = high - low if draw == "random.uniform()" else high
            expression = f"{literal(low)} + {literal(factor)} * {draw}"
        target = code.buffer(shape, dtype)
        code.lines.append(
            f"for (int64_t i = 0; i < {count_of(shape)}; ++i) {target.name}[i] = {expression};"
        )
        return target

    return lower


def _permutation(code: Lowering, node: Any) -> Value:
    """A random permutation, of which only the entries that are used are drawn."""
    (size,), dtype = meta_of(node)
    used = 0
    for user in node.users:
        stop = user.args[3] if user.target is torch.ops.aten.slice.Tensor else size
        start = user.args[2] if user.target is torch.ops.aten.slice.Tensor else 0
        plain = isinstance(stop, int) and isinstance(start, int) and start >= 0 and stop >= 0
        used = max(used, min(stop, size) if plain else size)
    target = code.buffer((size,), dtype)
    code.prepare.append(target.name)
    fill = f"for (int64_t i = 0; i < {size}; ++i) {target.name}[i] = i;"
    code.prepare[-1] = f"{code.lines[-1]} {fill}"
    code.lines.append(f"random.choose({target.name}, {size}, {used});")
    return target


def _flip(code: Lowering, node: Any) -> Value:
    source = code.memory(code.values[node.args[0].name])
    shape, dtype = meta_of(node)
    target = code.buffer(shape, dtype)
    turned = {d % len(shape) for d in node.args[1]}
    strides = tuple(-s if d in turned else s for d, s in enumerate(source.strides))
    offset = source.offset + sum((shape[d] - 1) * source.strides[d] for d in turned)
    code.copy(View(source.name, shape, dtype, strides, offset), target)
    return target


def _polygamma(code: Lowering, node: Any) -> Value:
    if node.args[0] != 1:
        raise Unsupported(f"polygamma of order {node.args[0]}")
    return code.pointwise(node, lambda x: f"p_trigamma({x})", [code.value(node.args[1])])


def _item(code: Lowering, node: Any) -> Value:
    raise Unsupported("the value of a tensor is read (.item(), float(), or an index)")


def _select(dim: int, position: int, x: Tensor) -> Tensor:
    return x.select(dim, position)


def _narrow(view: View, dim: int, start: int, size: int) -> View:
    return must_view(view, lambda x: x.narrow(dim, start, size))


def _flat(strides: tuple[int, ...], shape: tuple[int, ...]) -> str:
    return " + ".join([*(f"i{k} * {s}" for k, s in enumerate(strides)), "0"])


def _strides_for(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = must_view(view, lambda x: x.expand(shape))
    return found.strides


def _dot_index(strides: tuple[int, ...], offset: int, first: int = 0) -> str:
    return " + ".join([*(f"i{first + k} * {s}" for k, s in enumerate(strides) if s), str(offset)])


RANDOM = ("normal_functional", "randn", "rand", "uniform", "randperm", "rand_like", "randn_like")

OPERATIONS: dict[str, Callable[[Lowering, Any], Any]] = {
    **MATRIX_OPERATIONS,
    "sum": _sum,
    "mean": _mean,
    "amax": _amax,
    "split_with_sizes": _split,
    "unbind": _unbind,
    "cat": _cat,
    "index": _index,
    "index_put": _index_put,
    "index_select": _index_select,
    "slice_scatter": _scatter_into(lambda x, *a, **k: torch.ops.aten.slice.Tensor(x, *a, **k)),
    "select_scatter": _scatter_into(lambda x, *a, **k: torch.ops.aten.select.int(x, *a, **k)),
    "diagonal_scatter": _scatter_into(
        lambda x, *a, **k: torch.ops.aten.diagonal.default(x, *a, **k)
    ),
    "as_strided_scatter": _scatter_into(torch.as_strided),
    "constant_pad_nd": _pad,
    "flip": _flip,
    "polygamma": _polygamma,
    "_local_scalar_dense": _item,
    "cumsum": _cumsum,
    "normal_functional": _random("random.normal()", scaled=True),
    "uniform": _random("random.uniform()", scaled=True),
    "randn": _random("random.normal()"),
    "randn_like": _random("random.normal()"),
    "rand": _random("random.uniform()"),
    "rand_like": _random("random.uniform()"),
    "randperm": _permutation,
}
"""ATen operation -> rule"""
