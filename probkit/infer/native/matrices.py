"""Matrix operations: products, Cholesky factors, triangular solves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from probkit.infer.native.expressions import c_type, literal
from probkit.infer.native.lowering import Lowering, Unsupported, count_of, meta_of
from probkit.infer.native.values import Number, Value, View, must_view

__all__ = ["MATRIX_OPERATIONS"]


def _multiply(code: Lowering, node: Any) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    return _product(code, node, a, b)


def _product(code: Lowering, node: Any, a: View, b: View) -> View:
    shape, dtype = meta_of(node)
    target = code.buffer(shape, dtype)
    kind = c_type(dtype)
    batch = count_of(shape[:-2])
    (n, m), p = a.shape[-2:], b.shape[-1]
    if batch > 1 and p == 1 and a.strides[0] == 0:  # one matrix, many vectors
        code.lines.append(
            f"multiply_shared<{kind}>({a.name} + {a.offset}, {a.strides[-2]}, {a.strides[-1]}, "
            f"{b.name} + {b.offset}, {b.strides[-2]}, {b.strides[0]}, {target.name}, 1, {n}, "
            f"{n}, {m}, {batch});"
        )
        return target
    triangle = _triangle(code, a) if p > 1 and b.strides[-1] == 1 else ""
    if len(shape) == 3:
        head = f"for (int64_t i = 0; i < {batch}; ++i) "
        at = [f" + i * {v.strides[0]}" for v in (a, b, target)]
    else:
        head, at = "", ["", "", ""]
    left = f"{a.name} + {a.offset}{at[0]}, {a.strides[-2]}, {a.strides[-1]}"
    right = f"{b.name} + {b.offset}{at[1]}, {b.strides[-2]}"
    product = f"{target.name}{at[2]}"
    if triangle:
        call = f"multiply_triangular<{kind}>({left}, {right}, {product}, {n}, {p}, {triangle});"
    else:
        call = f"multiply<{kind}>({left}, {right}, {b.strides[-1]}, {product}, {n}, {m}, {p});"
    code.lines.append(head + call)
    return target


def _triangle(code: Lowering, view: View) -> str:
    """Whether a Cholesky factor or its transpose is upper, as C++; empty for other matrices."""
    n = view.shape[-1]
    if view.name not in code.factors or view.shape[-2] != n or view.offset:
        return ""
    names: dict[tuple[int, ...], str] = {(n, 1): "false", (1, n): "true"}
    return names.get(view.strides[-2:], "")


def _matrix_vector(code: Lowering, node: Any) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    shape, dtype = meta_of(node)
    target = code.buffer(shape, dtype)
    code.lines.append(
        f"multiply<{c_type(dtype)}>({a.name} + {a.offset}, {a.strides[0]}, {a.strides[1]}, "
        f"{b.name} + {b.offset}, {b.strides[0]}, 1, {target.name}, {shape[0]}, {b.shape[0]}, 1);"
    )
    return target


def _dot(code: Lowering, node: Any) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    shape, dtype = meta_of(node)
    name = code.name("s")
    code.lines += [
        f"{c_type(dtype)} {name} = 0;",
        f"#pragma omp simd reduction(+:{name})",
        f"for (int64_t i = 0; i < {a.shape[0]}; ++i) {name} += "
        f"{a.name}[{a.offset} + i * {a.strides[0]}] * {b.name}[{b.offset} + i * {b.strides[0]}];",
    ]
    return Number(name, shape, dtype)


def _batches(view: View) -> tuple[int, str]:
    """Number of matrices and the offset of matrix ``i`` of a (batched) contiguous array."""
    count = count_of(view.shape[:-2])
    return count, f"i * {count_of(view.shape[-2:])}"


def _matrices(code: Lowering, value: Any) -> View:
    """Matrices whose batch can be stepped through: one, or a contiguous stack."""
    view = code.memory(value)
    return view if len(view.shape) == 2 else code.dense(view)


def _cholesky(code: Lowering, node: Any) -> list[Value]:
    if node.kwargs.get("upper"):
        raise Unsupported("an upper Cholesky factor")
    a = _matrices(code, code.values[node.args[0].name])
    shape, dtype = a.shape, a.dtype
    target = code.buffer(shape, dtype)
    code.factors.add(target.name)
    count, at = _batches(a)
    at = at if len(shape) > 2 else "0"
    call = (
        f"cholesky<{c_type(dtype)}>({a.name} + {a.offset} + {at}, {a.strides[-2]}, "
        f"{a.strides[-1]}, {target.name} + {at}, {shape[-1]})"
    )
    if len(shape) == 2:
        info = code.name("s")
        code.lines.append(f"const int32_t {info} = {call};")
        return [target, Number(info, (), torch.int32)]
    infos = code.buffer(shape[:-2], torch.int32)
    code.lines.append(f"for (int64_t i = 0; i < {count}; ++i) {infos.name}[i] = {call};")
    return [target, infos]


def _check(code: Lowering, node: Any) -> None:
    info = code.settled(code.values[node.args[0].name])
    if isinstance(info, Number):
        code.lines.append(f"if ({info.name}) return 1;")
        return
    infos = code.dense(info)
    count = count_of(infos.shape)
    code.lines.append(f"for (int64_t i = 0; i < {count}; ++i) if ({infos.name}[i]) return 1;")


def _solve_triangular(code: Lowering, node: Any) -> Value:
    a, b = (code.memory(code.values[n.name]) for n in node.args[:2])
    upper, unit = bool(node.kwargs["upper"]), bool(node.kwargs.get("unitriangular", False))
    if node.kwargs.get("left", True):
        return _solve(code, a, b, upper, unit)
    # X A = B is A' X' = B'
    return _transposed(_solve(code, _transposed(a), _transposed(b), not upper, unit))


def _cholesky_solve(code: Lowering, node: Any) -> Value:
    b, factor = (code.memory(code.values[n.name]) for n in node.args[:2])
    if len(node.args) > 2 and node.args[2]:
        factor = _transposed(factor)
    half = _solve(code, factor, b, False, False)
    return _solve(code, _transposed(factor), half, True, False)


def _solve(code: Lowering, a: View, b: View, upper: bool, unit: bool) -> View:
    """``A^-1 B`` for triangular A, both with the same batch."""
    if a.shape[:-2] != b.shape[:-2]:
        raise Unsupported("a triangular solve with broadcast batches")
    if len(a.shape) > 2:
        turned = a.strides[-2] == 1 and a.shape[-1] > 1
        a = _transposed(code.dense(_transposed(a))) if turned else code.dense(a)
        b = code.dense(b)
    target = code.buffer(b.shape, b.dtype)
    count, at = _batches(target)
    n = a.shape[-1]
    code.lines.append(
        f"for (int64_t i = 0; i < {count}; ++i) solve_triangular<{c_type(b.dtype)}>("
        f"{a.name} + {a.offset} + i * {n * n}, {a.strides[-2]}, {a.strides[-1]}, "
        f"{b.name} + {b.offset} + {at}, {b.strides[-2]}, {b.strides[-1]}, {target.name} + {at}, "
        f"{n}, {b.shape[-1]}, {literal(upper)}, {literal(unit)});"
    )
    return target


def _transposed(view: View) -> View:
    found = must_view(view, lambda x: x.mT)
    return found


MATRIX_OPERATIONS: dict[str, Callable[[Lowering, Any], Any]] = {
    "mm": _multiply,
    "bmm": _multiply,
    "mv": _matrix_vector,
    "dot": _dot,
    "linalg_cholesky_ex": _cholesky,
    "_linalg_check_errors": _check,
    "linalg_solve_triangular": _solve_triangular,
    "cholesky_solve": _cholesky_solve,
}
"""ATen operation -> rule"""
