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
    """type and expression of each member; ``{k}`` stands for load k"""
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
        if self.stores:
            patterns.append(dense_strides(self.shape))
        sizes, merged = _merge(self.shape, patterns)
        num_loads, num_reductions = len(self.loads), len(self.reductions)
        load_strides = merged[:num_loads]
        reduction_strides = merged[num_loads : num_loads + num_reductions]
        depth = len(sizes)
        lines: list[str] = []
        inner: list[str] = []
        for k, (access, strides) in enumerate(zip(self.loads, load_strides, strict=True)):
            inner.append(f"const auto L{k} = {access.pointer}[{_index(strides, access.offset)}];")
        for k, (kind, expression) in enumerate(self.body):
            inner.append(f"const {kind} m{k} = {expression};")
        for member, pointer in self.stores:
            inner.append(f"{pointer}[{_index(merged[-1], 0)}] = m{member};")
        carried = []
        for r, strides in zip(self.reductions, reduction_strides, strict=True):
            # sums over the innermost dimension stay in a register
            level = depth
            while level > 0 and strides[level - 1] == 0:
                level -= 1
            target = f"{r.pointer}[{_index(strides, 0)}]"
            if level == depth:
                inner.append(_accumulate(target, f"m{r.member}", r.maximum))
                if r.scalar == "":
                    lines.append(_clear(r, sizes, strides))
                continue
            name = f"r{r.member}_{len(carried)}"
            inner.append(_accumulate(name, f"m{r.member}", r.maximum))
            outer_reduced = any(s == 0 for s in strides[:level])
            carried.append((level, name, target, r, outer_reduced))
            if outer_reduced:
                lines.append(_clear(r, sizes, strides))
        names = ", ".join(name for _, name, _, r, _ in carried if not r.maximum)
        peaks = ", ".join(name for _, name, _, r, _ in carried if r.maximum)
        simd = "#pragma omp simd"
        simd += f" reduction(+:{names})" if names else ""
        simd += f" reduction(max:{peaks})" if peaks else ""
        body: list[str] = inner
        for level in reversed(range(depth)):
            head = f"for (int64_t i{level} = 0; i{level} < {sizes[level]}; ++i{level}) {{"
            nest = ([simd] if level == depth - 1 else []) + [head, *body, "}"]
            before = [
                f"{r.type} {name} = {'-INFINITY' if r.maximum else '0'};"
                for at, name, _, r, _ in carried
                if at == level
            ]
            after = []
            for at, name, target, r, partial in carried:
                if at != level:
                    continue
                if r.scalar:
                    after.append(f"{r.scalar} = {name};")
                elif partial:
                    after.append(_accumulate(target, name, r.maximum))
                else:
                    after.append(f"{target} = {name};")
            body = [*before, *nest, *after]
        return [*lines, "{", *body, "}"]


def _accumulate(target: str, value: str, maximum: bool) -> str:
    if maximum:
        return f"{target} = {value} > {target} ? {value} : {target};"
    return f"{target} += {value};"


def _clear(r: Reduction, sizes: Sequence[int], strides: Sequence[int]) -> str:
    count = 1
    for size, stride in zip(sizes, strides, strict=True):
        count *= size if stride else 1
    start = "-INFINITY" if r.maximum else "0"
    return f"for (int64_t i = 0; i < {count}; ++i) {r.pointer}[i] = {start};"


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
