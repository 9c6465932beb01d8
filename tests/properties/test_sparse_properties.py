"""Sparse recovery: units, phases, permutations of atoms, measurements and factors, dtypes."""

from __future__ import annotations

import warnings

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from probkit.sparse import KroneckerSBL, simulate_recovery
from tests.properties.examples import tried

seeds = st.integers(0, 2**20)


def problem(seed, is_complex=False):
    return simulate_recovery(
        num_atoms=(6, 7), num_measurements=(5, 6), num_nonzero=2, snr_db=30.0, seed=seed,
        is_complex=is_complex,
    )  # fmt: skip


def recovered(y, dictionaries, **settings):
    model = KroneckerSBL(**{"starts": ("flat",), "max_steps": 60, **settings})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few sweeps: both sides make the same
        return model.recover(y, dictionaries)


def permutation(size, seed):
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))


def same(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


@tried(2)
@given(seed=seeds, scale=st.sampled_from([1e-6, 7.0, 1e6]))
def test_unit_of_the_measurements(seed, scale):
    p = problem(seed)
    plain = recovered(p.y, p.dictionaries)
    scaled = recovered(scale * p.y, p.dictionaries)
    same(scaled.mean / scale, plain.mean)
    same(scaled.sd / scale, plain.sd)
    assert torch.equal(scaled.support, plain.support)


@tried(2)
@given(seed=seeds, phase=st.floats(-3.0, 3.0))
def test_a_common_phase_turns_the_coefficients(seed, phase):
    p = problem(seed, is_complex=True)
    turn = torch.polar(torch.ones(()).double(), torch.tensor(phase).double())
    plain, turned = recovered(p.y, p.dictionaries), recovered(turn * p.y, p.dictionaries)
    same(turned.mean, turn * plain.mean)
    same(turned.sd, plain.sd)


@tried(2)
@given(seed=seeds, is_complex=st.booleans())
def test_permuted_atoms_and_measurements(seed, is_complex):
    p = problem(seed, is_complex)
    plain = recovered(p.y, p.dictionaries)
    atoms, rows = permutation(6, seed), permutation(5, seed + 1)
    first, second = p.dictionaries
    found = recovered(p.y.reshape(5, 6)[rows], [first[rows][:, atoms], second])
    same(found.mean, plain.mean[atoms])
    same(found.sd, plain.sd[atoms])
    same(found.noise, plain.noise)


@tried(1)
@given(seed=seeds, is_complex=st.booleans())
def test_swapped_factors(seed, is_complex):
    """Sweeps take the factors in turn, so that only what has settled is the same."""
    p = problem(seed, is_complex)
    plain = recovered(p.y, p.dictionaries, max_steps=400)
    swapped = recovered(p.y.reshape(5, 6).mT.contiguous(), p.dictionaries[::-1], max_steps=400)
    torch.testing.assert_close(swapped.predict().mT, plain.predict(), rtol=0, atol=0.05)
    assert abs(float(swapped.log_evidence - plain.log_evidence)) < 1.0


@tried(2)
@given(seed=seeds)
def test_a_batch_is_its_problems(seed):
    first, second = problem(seed), problem(seed + 1)
    dictionaries = [
        torch.stack(pair) for pair in zip(first.dictionaries, second.dictionaries, strict=True)
    ]
    batch = recovered(torch.stack([first.y, second.y]).reshape(2, 5, 6), dictionaries, max_steps=20)
    for k, p in enumerate((first, second)):
        same(batch.mean[k], recovered(p.y.reshape(5, 6), p.dictionaries, max_steps=20).mean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_is_kept(dtype):
    p = problem(0, dtype.is_complex)
    found = recovered(p.y.to(dtype), [a.to(dtype) for a in p.dictionaries])
    assert found.mean.dtype == dtype
    assert found.sd.dtype == torch.float32
    exact = recovered(p.y, p.dictionaries)
    assert float((found.mean - exact.mean).abs().max() / exact.mean.abs().max()) < 1e-2
