"""Operations with rules of their own: reductions, matrices, indexing, random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from probkit.infer.native.expressions import c_type, literal
from probkit.infer.native.lowering import Lowering, Unsupported, _meta, _numel
from probkit.infer.native.values import Number, Value, View, dense_strides, view_of

__all__ = ["OPERATIONS", "RANDOM"]


def _sum(code: Lowering, node: fx.Node) -> Value:
    dims = node.args[1] if len(node.args) > 1 and node.args[1] is not None else ()
    return code.reduction(node, code.values[node.args[0].name], list(dims), False)


def _mean(code: Lowering, node: fx.Node) -> Value:
    total = _sum(code, node)
    source = _meta(node.args[0])[0]
    count = _numel(source) / max(_numel(_meta(node)[0]), 1)
    return code.pointwise(node, lambda x: f"({x} / {literal(count)})", [total])


def _amax(code: Lowering, node: fx.Node) -> Value:
    dims = node.args[1] if len(node.args) > 1 else ()
    return code.reduction(node, code.values[node.args[0].name], list(dims), True)


def _split(code: Lowering, node: fx.Node) -> list[Value]:
    view = code.memory(code.values[node.args[0].name])
    sizes = node.args[1]
    dim = node.args[2] if len(node.args) > 2 else 0
    parts, start = [], 0
    for size in sizes:
        found = view_of(view, lambda x, s=start, n=size: x.narrow(dim, s, n))
        assert found is not None
        parts.append(found)
        start += size
    return list(parts)


def _unbind(code: Lowering, node: fx.Node) -> list[Value]:
    view = code.memory(code.values[node.args[0].name])
    dim = node.args[1] if len(node.args) > 1 else 0
    found = [view_of(view, lambda x, i=i: x.select(dim, i)) for i in range(view.shape[dim])]
    return [f for f in found if f is not None]


def _cat(code: Lowering, node: fx.Node) -> Value:
    shape, dtype = _meta(node)
    sources = [code.settled(code.values[n.name]) for n in node.args[0]]
    target = code.buffer(shape, dtype)
    dim = (node.args[1] if len(node.args) > 1 else 0) % max(len(shape), 1)
    start = 0
    for source in sources:
        size = source.shape[dim]
        part = view_of(target, lambda x, s=start, n=size: x.narrow(dim, s, n))
        assert part is not None
        code.copy(source, part)
        start += size
    return target


def _multiply(code: Lowering, node: fx.Node) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    return _product(code, node, a, b)


def _product(code: Lowering, node: fx.Node, a: View, b: View) -> View:
    shape, dtype = _meta(node)
    target = code.buffer(shape, dtype)
    kind = c_type(dtype)
    batch = _numel(shape[:-2])
    (n, m), p = a.shape[-2:], b.shape[-1]
    if len(shape) == 3:
        head = f"for (int64_t i = 0; i < {batch}; ++i) "
        at = [f" + i * {v.strides[0]}" for v in (a, b, target)]
    else:
        head, at = "", ["", "", ""]
    code.lines.append(
        f"{head}multiply<{kind}>({a.name} + {a.offset}{at[0]}, {a.strides[-2]}, {a.strides[-1]}, "
        f"{b.name} + {b.offset}{at[1]}, {b.strides[-2]}, {b.strides[-1]}, "
        f"{target.name}{at[2]}, {n}, {m}, {p});"
    )
    return target


def _matrix_vector(code: Lowering, node: fx.Node) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    column = view_of(b, lambda x: x.unsqueeze(-1))
    assert column is not None
    shape, dtype = _meta(node)
    target = code.buffer(shape, dtype)
    code.lines.append(
        f"multiply<{c_type(dtype)}>({a.name} + {a.offset}, {a.strides[0]}, {a.strides[1]}, "
        f"{b.name} + {b.offset}, {b.strides[0]}, 1, {target.name}, {shape[0]}, {b.shape[0]}, 1);"
    )
    return target


def _dot(code: Lowering, node: fx.Node) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    shape, dtype = _meta(node)
    name = code.name("s")
    code.lines.append(
        f"{c_type(dtype)} {name} = 0; for (int64_t i = 0; i < {a.shape[0]}; ++i) {name} += "
        f"{a.name}[{a.offset} + i * {a.strides[0]}] * {b.name}[{b.offset} + i * {b.strides[0]}];"
    )
    return Number(name, shape, dtype)


def _batches(view: View) -> tuple[int, str]:
    """Number of matrices and the offset of matrix ``i`` of a (batched) contiguous array."""
    count = _numel(view.shape[:-2])
    return count, f"i * {_numel(view.shape[-2:])}"


def _matrices(code: Lowering, value: Any) -> View:
    """Matrices whose batch can be stepped through: one, or a contiguous stack."""
    view = code.memory(value)
    return view if len(view.shape) == 2 else code.dense(view)


def _cholesky(code: Lowering, node: fx.Node) -> list[Value]:
    if node.kwargs.get("upper"):
        raise Unsupported("an upper Cholesky factor")
    a = _matrices(code, code.values[node.args[0].name])
    shape, dtype = a.shape, a.dtype
    target = code.buffer(shape, dtype)
    count, at = _batches(a)
    info = code.name("s")
    code.lines.append(
        f"int32_t {info} = 0; for (int64_t i = 0; i < {count}; ++i) {{ const int32_t bad = "
        f"cholesky<{c_type(dtype)}>({a.name} + {a.offset} + {at}, {a.strides[-2]}, "
        f"{a.strides[-1]}, {target.name} + {at}, {shape[-1]}); if (bad) {info} = bad; }}"
    )
    return [target, Number(info, (1,), torch.int32)]


def _check(code: Lowering, node: fx.Node) -> None:
    info = code.number(code.values[node.args[0].name])
    code.lines.append(f"if ({info}) return 1;")


def _solve_triangular(code: Lowering, node: fx.Node) -> Value:
    a, b = (code.values[n.name] for n in node.args[:2])
    a, b = code.memory(a), code.memory(b)
    upper, unit = bool(node.kwargs["upper"]), bool(node.kwargs.get("unitriangular", False))
    left = node.kwargs.get("left", True)
    if not left:  # X A = B is A' X' = B'
        a, b = _transposed(a), _transposed(b)
        upper = not upper
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), *b.shape[-2:])
    if len(shape) > 2 and (a.shape[:-2] != shape[:-2] or b.shape[:-2] != shape[:-2]):
        raise Unsupported("a triangular solve with broadcast batches")
    if len(shape) > 2:
        transposed = [v.strides[-2] == 1 and v.shape[-1] > 1 for v in (a,)]
        a_dense = code.dense(_transposed(a)) if transposed[0] else code.dense(a)
        a = _transposed(a_dense) if transposed[0] else a_dense
        b = code.dense(b)
    target = code.buffer(shape, b.dtype)
    count, at = _batches(View("", shape, b.dtype, dense_strides(shape)))
    n = a.shape[-1]
    code.lines.append(
        f"for (int64_t i = 0; i < {count}; ++i) solve_triangular<{c_type(b.dtype)}>("
        f"{a.name} + {a.offset} + i * {n * n}, {a.strides[-2]}, {a.strides[-1]}, "
        f"{b.name} + {b.offset} + {at}, {b.strides[-2]}, {b.strides[-1]}, {target.name} + {at}, "
        f"{n}, {shape[-1]}, {literal(upper)}, {literal(unit)});"
    )
    return target if left else _transposed(target)


def _transposed(view: View) -> View:
    found = view_of(view, lambda x: x.mT)
    assert found is not None
    return found


def _index(code: Lowering, node: fx.Node) -> Value:
    """``x[i, j, ...]`` with index tensors for leading dimensions."""
    source = code.memory(code.values[node.args[0].name])
    shape, dtype = _meta(node)
    indices = list(node.args[1])
    if any(i is None for i in indices):
        raise Unsupported("indexing that skips a dimension")
    target = code.buffer(shape, dtype)
    place, rest = _place(code, source, indices, shape)
    code.lines.append(
        f"{target.name}[{_flat(target.strides, shape)}] = {source.name}[{place} + {rest}];"
    )
    return target


def _index_put(code: Lowering, node: fx.Node) -> Value:
    source = code.settled(code.values[node.args[0].name])
    shape, dtype = _meta(node)
    indices, update = list(node.args[1]), code.memory(code.values[node.args[2].name])
    accumulate = len(node.args) > 3 and bool(node.args[3])
    if any(i is None for i in indices):
        raise Unsupported("indexed assignment that skips a dimension")
    target = code.buffer(shape, dtype)
    code.copy(source, target)
    lead = torch.broadcast_shapes(*(_meta(i)[0] for i in indices))
    whole = (*lead, *shape[len(indices) :])
    strides = _strides_for(update, whole)
    place, rest = _place(code, target, indices, whole)
    sign = "+=" if accumulate else "="
    code.lines.append(
        f"{target.name}[{place} + {rest}] {sign} {update.name}[{_dot_index(strides, update.offset)}];"
    )
    return target


def _place(
    code: Lowering, source: View, indices: list[Any], shape: tuple[int, ...]
) -> tuple[str, str]:
    """Open loops over ``shape``; the address by index tensors, and by the dimensions after."""
    views = [code.memory(code.values[i.name]) for i in indices]
    lead = torch.broadcast_shapes(*(v.shape for v in views))
    for k, size in enumerate(shape):
        code.lines.append(f"for (int64_t i{k} = 0; i{k} < {size}; ++i{k})")
    terms = []
    for view, stride, size in zip(views, source.strides, source.shape, strict=False):
        if view.dtype != torch.int64:
            raise Unsupported(f"an index of {view.dtype}")
        at = _dot_index(_strides_for(view, lead), view.offset)
        terms.append(f"wrap({view.name}[{at}], {size}) * {stride}")
    after = source.strides[len(views) :]
    rest = [f"i{len(lead) + k} * {s}" for k, s in enumerate(after)]
    return " + ".join(terms), " + ".join([*rest, str(source.offset)])


def _index_select(code: Lowering, node: fx.Node) -> Value:
    source = code.memory(code.values[node.args[0].name])
    shape, dtype = _meta(node)
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


def _scatter_into(view: Callable[..., Any]) -> Callable[[Lowering, fx.Node], Value]:
    """``slice_scatter`` and its like: a copy of the base with a view of it overwritten."""

    def lower(code: Lowering, node: fx.Node) -> Value:
        base = code.settled(code.values[node.args[0].name])
        source = code.settled(code.values[node.args[1].name])
        shape, dtype = _meta(node)
        target = code.buffer(shape, dtype)
        code.copy(base, target)
        part = view_of(target, lambda x: view(x, *node.args[2:], **node.kwargs))
        assert part is not None
        code.copy(source, part)
        return target

    return lower


def _pad(code: Lowering, node: fx.Node) -> Value:
    source = code.settled(code.values[node.args[0].name])
    widths = list(node.args[1])
    shape, dtype = _meta(node)
    target = code.buffer(shape, dtype)
    code.copy(Number(literal(node.args[2] if len(node.args) > 2 else 0.0), (), dtype), target)

    def inner(x: Tensor) -> Tensor:
        for k in range(len(widths) // 2):
            dim = x.dim() - 1 - k
            x = x.narrow(dim, widths[2 * k], x.shape[dim] - widths[2 * k] - widths[2 * k + 1])
        return x

    if min(widths) < 0:
        raise Unsupported("padding by a negative width")
    part = view_of(target, inner)
    assert part is not None
    code.copy(source, part)
    return target


def _cumsum(code: Lowering, node: fx.Node) -> Value:
    shape, dtype = _meta(node)
    source = code.settled(code.values[node.args[0].name])
    target = code.buffer(shape, dtype)
    code.copy(source, target)
    dim = node.args[1] % len(shape)
    step, size = target.strides[dim], shape[dim]
    outer, inner = _numel(shape[:dim]), _numel(shape[dim + 1 :])
    code.lines.append(
        f"for (int64_t i = 0; i < {outer}; ++i) for (int64_t j = 1; j < {size}; ++j) "
        f"for (int64_t k = 0; k < {inner}; ++k) {target.name}[i * {size * step} + j * {step} + k]"
        f" += {target.name}[i * {size * step} + (j - 1) * {step} + k];"
    )
    return target


def _random(draw: str, scaled: bool = False) -> Callable[[Lowering, fx.Node], Value]:
    """Independent draws into a new buffer, shifted and scaled by the node's two numbers."""

    def lower(code: Lowering, node: fx.Node) -> Value:
        shape, dtype = _meta(node)
        numbers = [a for a in node.args if isinstance(a, int | float)]
        low, high = (*numbers, *((0.0, 1.0)[len(numbers) :]))[:2]
        expression = draw
        if scaled and (low, high) != (0.0, 1.0):
            factor = high - low if draw == "random.uniform()" else high
            expression = f"{literal(low)} + {literal(factor)} * {draw}"
        target = code.buffer(shape, dtype)
        code.lines.append(
            f"for (int64_t i = 0; i < {_numel(shape)}; ++i) {target.name}[i] = {expression};"
        )
        return target

    return lower


def _permutation(code: Lowering, node: fx.Node) -> Value:
    """A random permutation, of which only the entries that are used are drawn."""
    (size,), dtype = _meta(node)
    used = 0
    for user in node.users:
        stop = user.args[3] if user.target is torch.ops.aten.slice.Tensor else size
        start = user.args[2] if user.target is torch.ops.aten.slice.Tensor else 0
        plain = isinstance(stop, int) and isinstance(start, int) and 0 <= start and stop >= 0
        used = max(used, min(stop, size) if plain else size)
    target = code.buffer((size,), dtype)
    code.prepare.append(target.name)
    fill = f"for (int64_t i = 0; i < {size}; ++i) {target.name}[i] = i;"
    code.prepare[-1] = f"{code.lines[-1]} {fill}"
    code.lines.append(f"random.choose({target.name}, {size}, {used});")
    return target


RANDOM = ("normal_functional", "randn", "rand", "uniform", "randperm", "rand_like", "randn_like")

OPERATIONS: dict[str, Callable[[Lowering, fx.Node], Any]] = {
    "sum": _sum,
    "mean": _mean,
    "amax": _amax,
    "split_with_sizes": _split,
    "unbind": _unbind,
    "cat": _cat,
    "mm": _multiply,
    "bmm": _multiply,
    "mv": _matrix_vector,
    "dot": _dot,
    "linalg_cholesky_ex": _cholesky,
    "_linalg_check_errors": _check,
    "linalg_solve_triangular": _solve_triangular,
    "index": _index,
    "index_put": _index_put,
    "index_select": _index_select,
    "slice_scatter": _scatter_into(lambda x, *a, **k: torch.ops.aten.slice.Tensor(x, *a, **k)),
    "select_scatter": _scatter_into(lambda x, *a, **k: torch.ops.aten.select.int(x, *a, **k)),
    "diagonal_scatter": _scatter_into(
        lambda x, *a, **k: torch.ops.aten.diagonal.default(x, *a, **k)
    ),
    "constant_pad_nd": _pad,
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


def _flat(strides: tuple[int, ...], shape: tuple[int, ...]) -> str:
    return " + ".join([*(f"i{k} * {s}" for k, s in enumerate(strides)), "0"])


def _strides_for(view: View, shape: tuple[int, ...]) -> tuple[int, ...]:
    found = view_of(view, lambda x: x.expand(shape))
    assert found is not None
    return found.strides


def _dot_index(strides: tuple[int, ...], offset: int) -> str:
    return " + ".join([*(f"i{k} * {s}" for k, s in enumerate(strides) if s), str(offset)])
