"""Elementwise operations of an ATen graph as C++ expressions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

__all__ = ["POINTWISE", "c_type", "literal"]

_TYPES = {
    torch.float64: "double",
    torch.float32: "float",
    torch.int64: "int64_t",
    torch.int32: "int32_t",
    torch.bool: "bool",
}

Writer = Callable[..., str]


def c_type(dtype: torch.dtype) -> str | None:
    """C++ type of a tensor's elements; None where there is none."""
    return _TYPES.get(dtype)


def literal(value: float | bool) -> str:
    """A Python number as a C++ literal.

    Example:
        >>> literal(True), literal(2), literal(0.5), literal(float("inf"))
        ('true', '2.0', '0.5', 'INFINITY')
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    number = float(value)
    if math.isnan(number):
        return "NAN"
    if math.isinf(number):
        return "INFINITY" if number > 0 else "-INFINITY"
    return repr(number)


def _call(name: str) -> Writer:
    def write(*operands: str) -> str:
        return f"{name}({', '.join(operands)})"

    return write


def _infix(symbol: str) -> Writer:
    def write(left: str, right: str) -> str:
        return f"({left} {symbol} {right})"

    return write


def _scaled(symbol: str) -> Writer:
    def write(left: str, right: str, alpha: str = "1.0") -> str:
        return f"({left} {symbol} {right if alpha == '1.0' else f'{alpha} * {right}'})"

    return write


def _power(base: str, exponent: str) -> str:
    simple = {
        "0.0": "1.0",
        "1.0": base,
        "2.0": f"square({base})",
        "3.0": f"({base} * square({base}))",
        "-1.0": f"(1.0 / {base})",
        "-2.0": f"(1.0 / square({base}))",
        "0.5": f"p_sqrt({base})",
        "-0.5": f"(1.0 / p_sqrt({base}))",
    }
    return simple.get(exponent, f"p_pow({base}, {exponent})")


def _clamp(value: str, low: str | None = None, high: str | None = None) -> str:
    # comparisons that a NaN fails keep the NaN, as torch does
    if low is not None:
        value = f"at_least({value}, {low})"
    return value if high is None else f"at_most({value}, {high})"


def _names(prefix: str, names: Sequence[str]) -> dict[str, Writer]:
    return {name: _call(prefix + name) for name in names}


_FUNCTIONS = (
    *("exp", "expm1", "log", "log1p", "sqrt", "sin", "cos", "tan", "tanh", "sinh", "cosh"),
    *("asin", "acos", "atan", "erf", "erfc", "lgamma", "digamma", "sigmoid", "floor", "ceil"),
    *("abs", "sign", "log2", "log10", "exp2", "trunc", "round", "atan2"),
)

POINTWISE: dict[str, Writer] = {
    **_names("p_", _FUNCTIONS),
    "add": _scaled("+"),
    "sub": _scaled("-"),
    "mul": _infix("*"),
    "div": _infix("/"),
    "neg": lambda x: f"(-{x})",
    "remainder": _call("p_remainder"),
    "fmod": _call("p_fmod"),
    "pow": _power,
    "square": _call("square"),
    "rsqrt": lambda x: f"(1.0 / p_sqrt({x}))",
    "reciprocal": lambda x: f"(1.0 / {x})",
    "eq": _infix("=="),
    "ne": _infix("!="),
    "lt": _infix("<"),
    "le": _infix("<="),
    "gt": _infix(">"),
    "ge": _infix(">="),
    "logical_and": _infix("&&"),
    "logical_or": _infix("||"),
    "logical_not": lambda x: f"(!{x})",
    "bitwise_and": _infix("&"),
    "bitwise_or": _infix("|"),
    "bitwise_not": lambda x: f"(!{x})",
    "where": lambda c, a, b: f"({c} ? {a} : {b})",
    "maximum": _call("at_least"),
    "minimum": _call("at_most"),
    "clamp": _clamp,
    "clamp_min": _clamp,
    "clamp_max": lambda x, high: _clamp(x, None, high),
    "isnan": lambda x: f"({x} != {x})",
    "isinf": lambda x: f"(p_abs({x}) == INFINITY)",
    "copy": lambda _, x: x,
    "_to_copy": lambda x: x,
    "relu": lambda x: f"at_least({x}, 0.0)",
}
"""ATen operation -> expression of its operands"""
