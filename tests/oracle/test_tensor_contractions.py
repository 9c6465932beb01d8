"""Fibre sums, packed moments and structures against plain loops over the entries."""

from __future__ import annotations

import itertools

import pytest
import torch

from probkit.tensor.fibers import FiberTree
from probkit.tensor.packing import pack, unpack_coefficients
from probkit.tensor.structure import make_structure, packed_rows

SIZES = [(5, 4), (5, 4, 6), (3, 6, 2, 4)]
RANKS = {2: (2, 3), 3: (2, 3, 4), 4: (2, 1, 3, 2)}


def _case(sizes, structure, seed=0, num_entries=40):
    generator = torch.Generator().manual_seed(seed)
    options = {"generator": generator, "dtype": torch.float64}
    ranks = RANKS[len(sizes)] if structure == "tucker" else (3,) * len(sizes)
    index = [torch.randint(0, d, (num_entries,), generator=generator) for d in sizes]
    means = [torch.randn(d, r, **options) for d, r in zip(sizes, ranks, strict=True)]
    roots = [torch.randn(d, r, r, **options) for d, r in zip(sizes, ranks, strict=True)]
    covariances = [a @ a.mT for a in roots]
    weights = torch.rand(num_entries, **options)
    shape = make_structure(structure, ranks)
    half = torch.randn(shape.num_weights, shape.num_weights, **options)
    return shape, index, means, covariances, weights, half @ half.mT


def _dense_features(shape, rows):
    """Product of the given rows, one for each mode, as the vector that the weights multiply."""
    if shape.combine == "hadamard":
        return torch.stack(rows).prod(0)
    value = rows[0]
    for row in rows[1:]:
        value = torch.kron(value, row)
    return value


def _mean_second(shape, index, means, covariances, n):
    matrices = [
        c[i[n]] + torch.outer(m[i[n]], m[i[n]])
        for m, c, i in zip(means, covariances, index, strict=True)
    ]
    if shape.combine == "hadamard":
        return torch.stack(matrices).prod(0)
    value = matrices[0]
    for matrix in matrices[1:]:
        value = torch.kron(value, matrix)
    return value


CASES = list(itertools.product(SIZES, ["tucker", "cp"]))


@pytest.mark.parametrize(("sizes", "structure"), CASES)
def test_sites_and_normal_equations_match_a_loop(sizes, structure):
    shape, index, means, covariances, weights, second = _case(sizes, structure)
    packed = [packed_rows(m, c) for m, c in zip(means, covariances, strict=True)]
    quadratic = shape.pack_second(second)
    count = len(weights)
    normal = sum(
        weights[n] * _mean_second(shape, index, means, covariances, n) for n in range(count)
    )
    for root in range(len(sizes)):
        tree = FiberTree(index, sizes, root)
        sums = tree.accumulate(packed, weights, shape.combine)
        got = shape.normal_matrix(sums, packed[root], root, tree.order)
        torch.testing.assert_close(got, normal, rtol=1e-12, atol=1e-12)
        folded = unpack_coefficients(
            shape.fold(sums, quadratic, root, tree.order), shape.ranks[root]
        )
        # sum_i <Lambda_i, E u u'> is the same number as <E W W', normal matrix>
        rows = covariances[root] + means[root][:, :, None] * means[root][:, None, :]
        torch.testing.assert_close((folded * rows).sum(), (second * normal).sum())


@pytest.mark.parametrize(("sizes", "structure"), CASES)
def test_sites_are_the_second_moment_of_the_partial_derivative(sizes, structure):
    shape, index, means, _, weights, _ = _case(sizes, structure)
    covariances = [torch.zeros(*m.shape, m.shape[1], dtype=m.dtype) for m in means]
    packed = [packed_rows(m, c) for m, c in zip(means, covariances, strict=True)]
    core = torch.randn(shape.num_weights, generator=torch.Generator().manual_seed(1)).double()
    for root in range(len(sizes)):
        tree = FiberTree(index, sizes, root)
        expected = torch.zeros(sizes[root], shape.ranks[root], shape.ranks[root]).double()
        linear = torch.zeros(sizes[root], shape.ranks[root]).double()
        for n in range(len(weights)):
            derivative = []
            for r in range(shape.ranks[root]):
                rows = [m[i[n]] for m, i in zip(means, index, strict=True)]
                rows[root] = torch.eye(shape.ranks[root]).double()[r]
                derivative.append(core @ _dense_features(shape, rows))
            a = torch.stack(derivative)
            value = core @ _dense_features(shape, [m[i[n]] for m, i in zip(means, index)])
            # for zero covariances u_k' a_n is the prediction, whatever the mode
            assert abs(float(a @ means[root][index[root][n]] - value)) < 1e-12
            expected[index[root][n]] += weights[n] * torch.outer(a, a)
            linear[index[root][n]] += weights[n] * a
        sums = tree.accumulate(packed, weights, shape.combine)
        quadratic = shape.pack_second(torch.outer(core, core))
        got = unpack_coefficients(shape.fold(sums, quadratic, root, tree.order), shape.ranks[root])
        torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)
        first = tree.accumulate(means, weights, shape.combine)
        got = shape.fold(first, shape.core(core), root, tree.order)
        torch.testing.assert_close(got, linear, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(("sizes", "structure"), CASES)
def test_evaluation_at_the_entries(sizes, structure):
    shape, index, means, covariances, _, second = _case(sizes, structure)
    packed = [packed_rows(m, c) for m, c in zip(means, covariances, strict=True)]
    tree = FiberTree(index, sizes, 0)
    rows = shape.spread(packed[0], shape.pack_second(second), 0, tree.order)
    got = tree.evaluate(rows, packed, shape.combine)
    expected = torch.stack(
        [
            (second * _mean_second(shape, index, means, covariances, n)).sum()
            for n in range(len(index[0]))
        ]
    )
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-11)


def test_rows_without_entries_get_zero_sums():
    index = [torch.tensor([0, 2]), torch.tensor([1, 0])]
    tables = [torch.ones(4, 1).double(), torch.tensor([[2.0], [3.0]]).double()]
    sums = FiberTree(index, [4, 2], 0).accumulate(tables, None, "outer")
    assert sums[:, 0].tolist() == [3.0, 0.0, 2.0, 0.0]


def test_packing_round_trip():
    half = torch.randn(4, 4, generator=torch.Generator().manual_seed(0)).double()
    matrix = half @ half.mT
    form = half + half.mT
    from probkit.tensor.packing import pack_coefficients, unpack

    torch.testing.assert_close(unpack(pack(matrix), 4), matrix)
    torch.testing.assert_close(pack_coefficients(form) @ pack(matrix), (form * matrix).sum())
    torch.testing.assert_close(unpack_coefficients(pack_coefficients(form), 4), form)
