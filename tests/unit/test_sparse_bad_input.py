"""Every way to call the recovery wrongly ends in a message that says what to change."""

import math
import warnings

import pytest
import torch

from probkit.errors import (
    ConfigurationError,
    DataError,
    DtypeError,
    FitWarning,
    ProbkitError,
    ShapeError,
)
from probkit.infer import Status
from probkit.sparse import GridDictionary, KroneckerSBL, nearest_kronecker, simulate_recovery

P = simulate_recovery(num_atoms=6, num_measurements=(4, 5), num_nonzero=2, snr_db=20.0, seed=1)
Y, A = P.y, P.dictionaries


def with_value(tensor, value, where):
    out = tensor.clone()
    out[where] = value
    return out


CASES = [
    # y, dictionaries, settings, error, words of the message
    (Y, A, {"noise": None}, DtypeError, ["noise", "NoneType", "numbers"]),
    (Y, A, {"noise": 0.1 + 0j}, DtypeError, ["noise", "real numbers", "complex"]),
    (Y[:, :4], A, {}, ShapeError, ["y does not fit", "(4, 4)", "4, 5"]),
    (Y.mT, A, {}, ShapeError, ["another order", "[1, 0]"]),
    (torch.stack([Y, Y], -1), A, {}, ShapeError, ["leading dimensions"]),
    (Y, [], {}, ShapeError, ["No dictionary", "dictionaries"]),
    (Y, [A[0], A[1][0]], {}, ShapeError, ["dictionaries[1]", "(M, N)"]),
    (Y, torch.kron(*A), {}, ShapeError, ["list of factor matrices", "nearest_kronecker"]),
    (Y.half(), A, {}, DtypeError, ["Half precision", "double"]),
    (Y, [A[0].half(), A[1]], {}, DtypeError, ["dictionaries[0]"]),
    ("y", A, {}, DtypeError, ["numbers", "y"]),
    (with_value(Y, math.nan, (1, 2)), A, {}, DataError, ["y", "[1, 2]", "masked_kronecker"]),
    (Y, [with_value(A[0], math.inf, (0, 3)), A[1]], {}, DataError, ["dictionaries[0]", "[0, 3]"]),
    (Y, A, {"noise": 0.0}, ConfigurationError, ["noise", "positive", "noiseless"]),
    (Y, A, {"noise": -20.0}, ConfigurationError, ["decibels"]),
    (Y, A, {"noise": 1e6}, ConfigurationError, ["decibels", "precision", "variance"]),
    (Y, A, {"noise": torch.ones(4, 5)}, ShapeError, ["scalar", "breaks the Kronecker form"]),
    (Y, A, {"noise": "low"}, ConfigurationError, ["'low'", "learn"]),
    (Y, A, {"order": "K"}, ConfigurationError, ["order", "one of C, F"]),
    (Y, A, {"method": "lasso"}, ConfigurationError, ["'lasso'", "evidence", "svd"]),
    (Y, A, {"starts": ("flat", "warm")}, ConfigurationError, ["starts", "warm"]),
    (Y, A, {"max_bytes": 100.0}, ConfigurationError, ["byte budget", "36 atoms", "slices"]),
    (Y, A, {"method": "classic", "max_bytes": 1e3}, ConfigurationError, ["dense dictionary"]),
    (Y, [A[0].to("meta"), A[1]], {}, DataError, ["different devices", ".to(device)"]),
    (Y[None][:0], A, {}, ShapeError, ["nothing to recover", "(0, 4, 5)"]),
    (1e160 * Y, A, {}, DataError, ["y", "range of torch.float64", "divide"]),
    (1e-200 * Y, A, {}, DataError, ["y", "range of torch.float64", "divide"]),
    ((1e25 * Y).float(), [a.float() for a in A], {}, DataError, ["float32", "convert to float64"]),
    (Y, [1e160 * A[0], A[1]], {}, DataError, ["dictionaries[0]", "range"]),
    (Y, A, {"max_steps": 0}, ConfigurationError, ["max_steps", "0"]),
    (Y, A, {"max_steps": 1.5}, ConfigurationError, ["max_steps", "1.5"]),
    (Y, A, {"tolerance": -1.0}, ConfigurationError, ["tolerance", "-1.0"]),
    (Y, A, {"drop_below": 2.0}, ConfigurationError, ["drop_below", "[0, 1)"]),
    (Y, A, {"drop_below": -1.0}, ConfigurationError, ["drop_below", "[0, 1)"]),
    (Y, A, {"drop_below": (0.1, 0.1)}, ConfigurationError, ["drop_below", "no such setting"]),
    (Y, A, {"method": "am", "drop_below": (0.1,) * 3}, ConfigurationError, ["3 numbers"]),
    (Y, A, {"drop_absolute": 0.1}, ConfigurationError, ["drop_absolute", "no such setting"]),
    (Y, A, {"coupling": 0.5}, ConfigurationError, ["coupling", "pattern_coupled"]),
    (Y, A, {"method": "pattern_coupled", "coupling": 5.0}, ConfigurationError, ["[0, 1]"]),
    (Y, A, {"method": "pattern_coupled", "coupling": -3}, ConfigurationError, ["[0, 1]"]),
    (Y, A, {"method": "pattern_coupled", "coupled": [7]}, ConfigurationError, ["coupled", "7"]),
    (
        Y,
        A,
        {"method": "paper_pattern_coupled", "coupling": (0.0, 0.5)},
        ConfigurationError,
        ["one number", "chooses among several"],
    ),
    (torch.stack([Y] * 3), [a.expand(2, -1, -1) for a in A], {}, ShapeError, ["batches"]),
]


@pytest.mark.parametrize(("y", "dictionaries", "settings", "error", "words"), CASES)
def test_refused_with_a_message(y, dictionaries, settings, error, words):
    with pytest.raises(error) as caught:
        KroneckerSBL(**settings).recover(y, dictionaries)
    assert isinstance(caught.value, ProbkitError)
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, str(caught.value)


def test_inputs_are_not_changed():
    y, a = Y.clone(), [d.clone() for d in A]
    KroneckerSBL(starts=("flat",)).recover(y, a)
    assert torch.equal(y, Y)
    assert all(torch.equal(b, d) for b, d in zip(a, A, strict=True))


def test_dtypes_are_promoted():
    lean = KroneckerSBL(starts=("flat",))
    assert lean.recover(Y, [A[0].to(torch.complex128), A[1]]).mean.dtype == torch.complex128
    assert lean.recover(Y.to(torch.complex128), A).mean.dtype == torch.complex128
    rounded = [(10 * a).round().long() for a in A]
    assert lean.recover((10 * Y).round().long(), rounded).mean.dtype == torch.float64


def test_silence_is_recovered_with_a_warning():
    with pytest.warns(FitWarning, match="zero everywhere"):
        found = KroneckerSBL().recover(torch.zeros_like(Y), A)
    assert found.result.status is Status.CONVERGED
    assert float(found.mean.abs().max()) == 0.0
    assert math.isfinite(float(found.log_evidence))
    assert not bool(found.support.any())


@pytest.mark.parametrize("method", ["evidence", "pattern_coupled", "svd"])
def test_a_silent_problem_leaves_its_batch_alone(method):
    model = KroneckerSBL(method, starts=("flat",))
    alone = model.recover(Y, A)
    with pytest.warns(FitWarning, match="in 1 of 2 problems"):
        both = model.recover(torch.stack([torch.zeros_like(Y), Y]), A)
    assert both.result.status is Status.CONVERGED
    torch.testing.assert_close(both.mean[1], alone.mean)
    assert float(both.mean[0].abs().max()) == float(both.sd[0].max()) == 0.0


@pytest.mark.parametrize("coupling", [0, 1, 0.2, [0.2], (0.0,)])
def test_the_papers_coupling_is_the_one_asked_for(coupling):
    found = KroneckerSBL("paper_pattern_coupled", coupling=coupling, max_steps=2).fit(Y, A)
    used = found.result_.provenance["settings"]["model"]
    expected = coupling if isinstance(coupling, int | float) else coupling[0]
    assert used["coupling"] == expected
    assert used["max_steps"] == 2


def test_pure_noise_gives_the_null_model():
    y = torch.randn(30, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    a = [torch.randn(m, 5, generator=torch.Generator().manual_seed(m)).double() for m in (30, 40)]
    found = KroneckerSBL().recover(y, a)
    assert not bool(found.support.any())
    assert float(found.mean.abs().max()) == float(found.sd.max()) == 0.0
    assert abs(float(found.noise) / float(y.square().mean()) - 1) < 1e-6
    normal = torch.distributions.Normal(0.0, found.noise.sqrt())
    assert abs(float(found.log_evidence) - float(normal.log_prob(y).sum())) < 1e-6


def test_column_of_zeros_is_never_used():
    a = [with_value(A[0], 0.0, (slice(None), 2)), A[1]]
    found = KroneckerSBL().recover(Y, a)
    assert bool(torch.isfinite(found.mean).all() & torch.isfinite(found.sd).all())
    assert not bool(found.support[2].any())
    assert found.mean.shape == (6, 6)


def test_equal_columns_are_reported():
    twice = A[0].clone()
    twice[:, 3] = -2.0 * twice[:, 1]
    with pytest.warns(FitWarning, match=r"\[1, 3\] of dictionaries\[0\]"):
        found = KroneckerSBL(starts=("flat",)).recover(Y, [twice, A[1]])
    assert bool(torch.isfinite(found.mean).all())


def test_stopping_early_is_said_and_the_result_kept():
    model = KroneckerSBL(max_steps=3)
    with pytest.warns(FitWarning, match=r"Not converged after 3 sweeps.*max_steps"):
        found = model.recover(Y, A)
    assert found.result.status is Status.MAX_STEPS
    assert bool(torch.isfinite(found.mean).all())


def test_more_measurements_than_atoms_and_one_factor():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        p = simulate_recovery(num_atoms=5, num_measurements=(9, 4), num_nonzero=2, seed=3)
        assert KroneckerSBL().recover(p.y, p.dictionaries).mean.shape == (5, 5)
        one = simulate_recovery(num_atoms=9, num_measurements=(12,), num_nonzero=2, seed=3)
        assert KroneckerSBL().recover(one.y, one.dictionaries).mean.shape == (9,)


def test_dense_matrix_is_split_into_its_factors():
    complex_ones = [a.to(torch.complex128) * (1 + 0.5j) for a in (*A, torch.ones(2, 3))]
    dense = torch.kron(torch.kron(complex_ones[0], complex_ones[1]), complex_ones[2])
    found = nearest_kronecker(dense, [(4, 6), (5, 6), (2, 3)])
    again = torch.kron(torch.kron(found[0], found[1]), found[2])
    torch.testing.assert_close(again, dense)
    with pytest.raises(DataError, match="not a Kronecker product"):
        nearest_kronecker(dense + 1e-3 * torch.eye(40, 108), [(4, 6), (5, 6), (2, 3)])
    with pytest.raises(ShapeError, match="shapes"):
        nearest_kronecker(dense, [(4, 6), (5, 6)])


@pytest.mark.parametrize(
    ("dictionary", "error", "words"),
    [
        (GridDictionary(lambda t: t[None], torch.zeros(2, 2)), ShapeError, ["grid", "(N,)"]),
        (GridDictionary(lambda t: t, torch.arange(6.0)), ShapeError, ["response", "(M, 6)"]),
        (
            GridDictionary(lambda t: t.detach().expand(4, -1), torch.arange(6.0)),
            ConfigurationError,
            ["differentiate", "numpy"],
        ),
        (
            GridDictionary(lambda t: t.expand(4, -1), torch.tensor([0.0, math.nan])),
            DataError,
            ["dictionaries[0].grid", "[1]"],
        ),
    ],
)
def test_grids_that_cannot_be_refined(dictionary, error, words):
    with pytest.raises(error) as caught:
        KroneckerSBL().recover_off_grid(Y, [dictionary, A[1]])
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_off_grid_takes_one_problem():
    with pytest.raises(ConfigurationError, match="one problem at a time"):
        KroneckerSBL().recover_off_grid(torch.stack([Y, Y]), A)


def test_predict_before_fit():
    with pytest.raises(ConfigurationError, match="Nothing was fitted"):
        KroneckerSBL().predict()
