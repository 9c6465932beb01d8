"""Sums over the entries of a sparse tensor, organised as a tree of fibres.

Every update of the functional Tucker model needs, for each index ``i`` of one mode (the root),

    S_i = sum over n with i_root(n) = i of  w_n * t_1[i_1(n)] (x) ... (x) t_{K-1}[i_{K-1}(n)]

for small tables ``t_j`` (rows: indices of mode j), with a Kronecker product (Tucker) or an
elementwise one (CP). Entries are sorted once into a tree (root index, then the other modes, the
largest last). The innermost sum runs over entries that share all indices but one and costs O(P)
each; what follows runs over the distinct prefixes only, so gridded data cost a small fraction of
N P^(K-1). Nothing of size N x P is ever stored: sums are ``embedding_bag`` calls.

Compressed sparse fibres: Smith et al., SPLATT (IPDPS 2015). The authors of FunBaT store one
message of size P^(K-1) for each entry instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import embedding_bag

__all__ = ["Combine", "FiberTree"]

Combine = Literal["outer", "hadamard"]
_CHUNK = 1 << 16


class FiberTree:
    """Entries of a tensor sorted into fibres below one root mode.

    Args:
        index: one (N,) tensor of row numbers for each of the K >= 2 modes.
        sizes: number of rows of each mode's tables.
        root: the mode whose index is the first level.

    Attributes:
        order: the other modes, from the outer level to the leaf.
    """

    def __init__(self, index: Sequence[Int[Tensor, " N"]], sizes: Sequence[int], root: int) -> None:
        others = sorted((k for k in range(len(sizes)) if k != root), key=lambda k: sizes[k])
        self.root, self.order = root, tuple(others)
        self.num_entries, self.num_rows = index[0].shape[0], sizes[root]
        levels = (root, *others)
        key = torch.zeros_like(index[0], dtype=torch.int64)
        for mode in levels:
            key = key * sizes[mode] + index[mode]
            if key.numel() and int(key.max()) > 2**62 // max(sizes):
                key = torch.unique(key, return_inverse=True)[1]
        self.permutation = torch.argsort(key)
        del key
        self._leaf_index = index[others[-1]][self.permutation].to(torch.int32)
        starts, node_of_entry = _prefix_starts([index[k] for k in levels[:-1]], self.permutation)
        self._node_rows: list[Tensor] = []  # row of mode levels[l] for each node of level l
        self._child_offsets: list[Tensor] = []  # children (level l + 1) of each node of level l
        for depth, start in enumerate(starts):
            self._node_rows.append(index[levels[depth]][self.permutation[start]].to(torch.int32))
            if depth + 1 < len(starts):
                deeper = starts[depth + 1]
                self._child_offsets.append(_offsets(torch.searchsorted(deeper, start), deeper))
        self._entry_offsets = _offsets(starts[-1], self.permutation)
        self._node_of_entry = node_of_entry

    @property
    def num_fibers(self) -> int:
        """Number of distinct prefixes: all indices but the leaf's."""
        return self._node_rows[-1].shape[0]

    def accumulate(
        self,
        tables: Sequence[Float[Tensor, "D_k P_k"]],
        weights: Float[Tensor, " N"] | None,
        combine: Combine,
    ) -> Float[Tensor, "D_root F"]:
        """Weighted sums of products of the other modes' rows, for each row of the root.

        Args:
            tables: one table for each mode (the root's is not read).
            weights: one weight for each entry in the caller's order; None for ones.
            combine: "outer": features are Kronecker products in the order of ``self.order``;
                "hadamard": elementwise products, all tables having the same width.
        """
        leaf = tables[self.order[-1]]
        sorted_weights = None if weights is None else weights[self.permutation]
        value = _bag(self._leaf_index, leaf, self._entry_offsets, sorted_weights)
        for depth in range(len(self._node_rows) - 1, 0, -1):
            rows = tables[self.order[depth - 1]][self._node_rows[depth]]
            nodes = torch.arange(rows.shape[0], dtype=torch.int32, device=rows.device)
            offsets = self._child_offsets[depth - 1]
            if combine == "hadamard":
                value = _bag(nodes, value * rows, offsets, None)
            else:
                columns = [_bag(nodes, value, offsets, rows[:, r]) for r in range(rows.shape[1])]
                value = torch.stack(columns, dim=1).flatten(1)
        if value.shape[0] == self.num_rows:
            return value
        result = value.new_zeros(self.num_rows, value.shape[1])
        result[self._node_rows[0]] = value
        return result

    def evaluate(
        self,
        root_rows: Float[Tensor, "D_root F"],
        tables: Sequence[Float[Tensor, "D_k P_k"]],
        combine: Combine,
    ) -> Float[Tensor, " N"]:
        """For each entry, the inner product of ``root_rows[i_root]`` with its product of rows."""
        leaf = tables[self.order[-1]]
        result = root_rows.new_empty(self.num_entries)
        parents = _parents(self._child_offsets)
        for start in range(0, self.num_fibers, _CHUNK):
            stop = min(start + _CHUNK, self.num_fibers)
            nodes = torch.arange(start, stop, device=root_rows.device)
            chain = [nodes]
            for parent in reversed(parents):
                chain.append(parent[chain[-1]])
            chain.reverse()
            value = root_rows[self._node_rows[0][chain[0]]]
            for depth in range(1, len(chain)):
                rows = tables[self.order[depth - 1]][self._node_rows[depth][chain[depth]]]
                if combine == "hadamard":
                    value = value * rows
                else:
                    value = torch.einsum(
                        "np,npf->nf", rows, value.reshape(*rows.shape, -1).contiguous()
                    )
            self._finish(value, leaf, start, stop, result)
        return result

    def _finish(self, value: Tensor, leaf: Tensor, start: int, stop: int, result: Tensor) -> None:
        first, last = int(self._entry_offsets[start]), int(self._entry_offsets[stop])
        for begin in range(first, last, _CHUNK):
            end = min(begin + _CHUNK, last)
            node = self._node_of_entry[begin:end] - start
            product = value[node] * leaf[self._leaf_index[begin:end]]
            result[self.permutation[begin:end]] = product.sum(-1)


def _bag(index: Tensor, table: Tensor, offsets: Tensor, weights: Tensor | None) -> Tensor:
    if table.dtype in (torch.float32, torch.float64):
        return embedding_bag(
            index,
            table.contiguous(),
            offsets,
            mode="sum",
            per_sample_weights=None if weights is None else weights.contiguous(),
            include_last_offset=True,
        )
    raise TypeError(f"tables must be float32 or float64, got {table.dtype}")


def _prefix_starts(columns: list[Tensor], permutation: Tensor) -> tuple[list[Tensor], Tensor]:
    """First entry of every distinct prefix of each length, and each entry's deepest node."""
    num_entries = permutation.shape[0]
    new = torch.zeros(num_entries, dtype=torch.bool, device=permutation.device)
    starts = []
    for column in columns:
        ordered = column[permutation]
        new[:1] = True
        new[1:] |= ordered[1:] != ordered[:-1]
        starts.append(torch.nonzero(new)[:, 0])
    node_of_entry = (torch.cumsum(new, 0) - 1).to(torch.int32)
    return starts, node_of_entry


def _offsets(starts: Tensor, content: Tensor) -> Tensor:
    end = torch.tensor([content.shape[0]], device=starts.device)
    return torch.cat([starts, end]).to(torch.int32)


def _parents(child_offsets: list[Tensor]) -> list[Tensor]:
    """Parent node of each node, for each level below the root's."""
    result = []
    for offsets in child_offsets:
        counts = (offsets[1:] - offsets[:-1]).long()
        nodes = torch.arange(counts.shape[0], device=offsets.device)
        result.append(torch.repeat_interleave(nodes, counts))
    return result
