"""Fused loops: elementwise results and their sums over one index space.

A loop collects elementwise operations on tensors of one shape while nothing else needs their
results; closing it writes one nest of C++ loops. Results that are only used inside it never reach
memory, and sums accumulate as the elements are made. Neighbouring dimensions that every operand
steps through alike become one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from probkit.infer.native.values import dense_strides

__all__ = ["Access", "Loop", "Reduction"]


@dataclass(frozen=True)
class Access:
    """A load inside the loop: pointer, strides along the loop's dimensions, offset."""

    pointer: str
    strides: tuple[int, ...]
    offset: int


@dataclass
class Reduction:
    """A sum (or maximum) of a member into ``pointer``; strides are zero where it is reduced."""

    member: int
    pointer: str
    strides: tuple[int, ...]
    type: str
    maximum: bool = False
    scalar: str = ""
    """variable that takes the result of a full reduction"""


@dataclass
class Loop:
    """An open loop over ``shape`` (no dimensions of size one)."""

    shape: tuple[int, ...]
    loads: list[Access] = field(default_factory=list)
    body: list[tuple[str, str]] = field(default_factory=list)
    """type and expression of each member, in terms of earlier ones (``m0``) and loads (``L0``)"""
    stores: list[tuple[int, str]] = field(default_factory=list)
    reductions: list[Reduction] = field(default_factory=list)

    def load(self, access: Access) -> str:
        """The placeholder of a load, made once."""
        if access not in self.loads:
            self.loads.append(access)
        return f"L{self.loads.index(access)}"

    def write(self) -> list[str]:
        """C++ statements of the whole nest."""
        patterns = [a.strides for a in self.loads] + [r.strides for r in self.reductions]
        patterns.append(dense_strides(self.shape))
        if not self.stores:
            patterns.pop()
        sizes, merged = _merge(self.shape, patterns)
        loads = merged[: len(self.loads)]
        body = [
            f"const auto L{k} = {access.pointer}[{_index(strides, access.offset)}];"
            for k, (access, strides) in enumerate(zip(self.loads, loads, strict=True))
        ]
        body += [f"const {kind} m{k} = {text};" for k, (kind, text) in enumerate(self.body)]
        body += [f"{name}[{_index(merged[-1], 0)}] = m{k};" for k, name in self.stores]
        totals = [
            _Total(r, f"r{k}", merged[len(self.loads) + k], sizes)
            for k, r in enumerate(self.reductions)
        ]
        first = [line for total in totals for line in total.start()]
        body += [line for total in totals for line in total.inside()]
        for level in reversed(range(len(sizes))):
            head = f"for (int64_t i{level} = 0; i{level} < {sizes[level]}; ++i{level}) {{"
            pragma = [_simd(totals)] if level == len(sizes) - 1 else []
            before = [line for total in totals for line in total.before(level)]
            after = [line for total in totals for line in total.after(level)]
            body = [*before, *pragma, head, *body, "}", *after]
        return [*first, "{", *body, "}"]


class _Total:
    """A reduction within a nest: in a register over the innermost dimensions that it sums out.

    ``level`` is the depth of the loops outside that register; at full depth there is none, and
    every element is added to memory.
    """

    def __init__(
        self, reduction: Reduction, name: str, strides: Sequence[int], sizes: Sequence[int]
    ) -> None:
        self.reduction, self.name, self.strides, self.sizes = reduction, name, strides, sizes
        self.level = len(sizes)
        while self.level > 0 and strides[self.level - 1] == 0:
            self.level -= 1
        self.partial = any(s == 0 for s in strides[: self.level])
        self.in_register = self.level < len(sizes)
        self._target = f"{reduction.pointer}[{_index(strides, 0)}]"
        self._start = "-INFINITY" if reduction.maximum else "0"

    def start(self) -> list[str]:
        if self.in_register and not self.partial:
            return []
        count = 1
        for size, stride in zip(self.sizes, self.strides, strict=True):
            count *= size if stride else 1
        pointer = self.reduction.pointer
        return [f"for (int64_t i = 0; i < {count}; ++i) {pointer}[i] = {self._start};"]

    def inside(self) -> list[str]:
        target = self.name if self.in_register else self._target
        return [_accumulate(target, f"m{self.reduction.member}", self.reduction.maximum)]

    def before(self, level: int) -> list[str]:
        if level != self.level:
            return []
        return [f"{self.reduction.type} {self.name} = {self._start};"]

    def after(self, level: int) -> list[str]:
        if level != self.level:
            return []
        if self.reduction.scalar:
            return [f"{self.reduction.scalar} = {self.name};"]
        if self.partial:
            return [_accumulate(self._target, self.name, self.reduction.maximum)]
        return [f"{self._target} = {self.name};"]


def _simd(totals: Sequence[_Total]) -> str:
    kept = [t for t in totals if t.in_register]
    sums = ", ".join(t.name for t in kept if not t.reduction.maximum)
    peaks = ", ".join(t.name for t in kept if t.reduction.maximum)
    pragma = "#pragma omp simd"
    pragma += f" reduction(+:{sums})" if sums else ""
    return pragma + (f" reduction(max:{peaks})" if peaks else "")


def _accumulate(target: str, value: str, maximum: bool) -> str:
    if maximum:
        return f"{target} = {value} > {target} ? {value} : {target};"
    return f"{target} += {value};"


def _index(strides: Sequence[int], offset: int) -> str:
    terms = [f"i{k}" if s == 1 else f"i{k} * {s}" for k, s in enumerate(strides) if s]
    if offset or not terms:
        terms.append(str(offset))
    return " + ".join(terms)


def _merge(
    shape: tuple[int, ...], patterns: Sequence[tuple[int, ...]]
) -> tuple[list[int], list[list[int]]]:
    """Merge neighbouring dimensions that every pattern of strides allows to be one."""
    sizes = list(shape) or [1]
    strides = [list(p) or [0] for p in patterns]
    k = len(sizes) - 2
    while k >= 0:
        if all(p[k] == p[k + 1] * sizes[k + 1] for p in strides):
            sizes[k] *= sizes.pop(k + 1)
            for p in strides:
                p.pop(k)
        k -= 1
    return sizes, strides
