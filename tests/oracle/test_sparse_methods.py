"""Methods of sparse recovery against dense transcriptions, monotonicity, batches and symmetries."""

from functools import partial, reduce

import numpy as np
import pytest
import torch

from probkit.infer import CAVI
from probkit.sparse import (
    GridDictionary,
    KroneckerSBL,
    kronecker_omp,
    nmse,
    omp,
    oracle_least_squares,
    simulate_recovery,
    steering,
    support_recovery,
)
from probkit.sparse.coupled import CoupledProgram
from probkit.sparse.evidence import EvidenceProgram
from probkit.sparse.problem import Problem
from probkit.sparse.program import Layout
from probkit.sparse.updates import evidence_noise, expectation_noise, expectation_step

SMALL = {"num_atoms": 6, "num_measurements": (4, 5, 6), "num_nonzero": 2, "snr_db": 15.0}


def dense_reference(problem, method, steps=150):
    """The authors' iteration with the dense dictionary and covariance, numpy, one problem."""
    a = [d.numpy() for d in problem.dictionaries]
    whole, y = reduce(np.kron, a), problem.y.numpy().ravel()
    drop = {"am": 1e-2, "ksbl": 1e-2, "svd": 1e-3}[method]
    g = [np.ones(d.shape[1]) for d in a]
    for _ in range(steps):
        g = [np.where(v >= drop * v.max(), v, 0) for v in g]
        scale = reduce(np.kron, g)
        c = problem.noise * np.eye(len(y)) + (whole * scale) @ whole.T
        gain = np.linalg.solve(c, whole * scale).T
        mean = gain @ y
        variance = scale - np.einsum("ij,ji->i", gain, whole * scale)
        total = (mean**2 + variance).reshape([len(v) for v in g])
        g = _dense_update(total, g, method)
        new = reduce(np.kron, g)
        if np.linalg.norm(new - scale) <= 1e-4 * np.linalg.norm(scale):
            break
    g = reduce(np.kron, g)
    c = problem.noise * np.eye(len(y)) + (whole * g) @ whole.T
    return g * (whole.T @ np.linalg.solve(c, y))


def _dense_update(total, g, method):
    if method == "svd":
        u, _, _ = np.linalg.svd(total.reshape(total.shape[0], -1))
        first, rest = np.abs(u[:, 0]), np.abs(np.tensordot(np.abs(u[:, 0]), total, 1))
        u, s, v = np.linalg.svd(rest)
        return [first, np.abs(u[:, 0]), np.abs(s[0] * v[0])]
    g = [v.copy() for v in g]
    for _ in range(2000 if method == "am" else 1):
        old = reduce(np.kron, g)
        for k in range(3):
            inverse = [np.divide(1, v, out=np.zeros_like(v), where=v > 0) for v in g]
            inverse[k] = np.ones_like(g[k])
            count = np.prod([(g[j] > 0).sum() for j in range(3) if j != k])
            grid = total * np.einsum("i,j,k->ijk", *inverse)
            value = grid.sum(tuple(j for j in range(3) if j != k)) / count
            g[k] = np.where(g[k] > 0, value, 0)
        if np.linalg.norm(reduce(np.kron, g) - old) <= 1e-5:
            break
    return g


@pytest.mark.parametrize("method", ["am", "svd", "ksbl"])
@pytest.mark.parametrize("seed", [1, 2])
def test_paper_methods_are_their_dense_transcription(method, seed):
    problem = simulate_recovery(structure="rank1", seed=seed, **SMALL)
    found = KroneckerSBL(method, noise=problem.noise).recover(problem.y, problem.dictionaries)
    expected = torch.as_tensor(dense_reference(problem, method)).reshape(problem.x.shape)
    assert (found.mean - expected).norm() < 1e-8 * expected.norm()


def test_classic_is_dense_em():
    problem = simulate_recovery(num_atoms=5, num_measurements=(3, 4), num_nonzero=2, seed=1)
    found = KroneckerSBL("classic", noise=problem.noise).recover(problem.y, problem.dictionaries)
    whole, y = torch.kron(*problem.dictionaries), problem.y.flatten()
    g = torch.ones(25, dtype=torch.float64)
    for _ in range(150):
        g = torch.where(g >= 1e-3 * g.max(), g, 0)
        c = problem.noise * torch.eye(12, dtype=torch.float64) + (whole * g) @ whole.mT
        gain = torch.linalg.solve(c, whole * g).mT
        mean = gain @ y
        new = mean**2 + g - (gain @ (whole * g)).diagonal()
        done = (new - g).norm() <= 1e-4 * g.norm()
        g = new
        if done:
            break
    c = problem.noise * torch.eye(12, dtype=torch.float64) + (whole * g) @ whole.mT
    expected = g * (whole.mT @ torch.linalg.solve(c, y))
    torch.testing.assert_close(found.mean.flatten(), expected, rtol=1e-8, atol=1e-9)


def programs(is_complex, noise):
    p = simulate_recovery(
        num_atoms=8, num_measurements=(5, 6, 6), snr_db=15.0, is_complex=is_complex, seed=4
    )
    variance = None if noise is None else torch.tensor([p.noise], dtype=torch.float64)
    problem = Problem([a.unsqueeze(0) for a in p.dictionaries], p.y[None, None], variance)
    layout = Layout((), False, "C")
    options = {"tolerance": 1e-300, "drop_below": 1e-60}
    yield EvidenceProgram(problem, layout, starts=("flat",), select=False, **options)
    yield CoupledProgram(problem, layout, couplings=(0.8,), **options)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("noise", [None, "given"])
def test_climbs_never_lower_the_evidence(is_complex, noise):
    for program in programs(is_complex, noise):
        history = CAVI(max_sweeps=200).fit(program).history["objective"]
        slack = 1e-8 * (1 + np.abs(history[:-1]))
        assert (np.diff(history) >= -slack).all()
        assert history[-1] > history[0] + 10


def test_em_never_lowers_the_evidence_and_noise_settles_where_it_should():
    (program, _) = programs(False, None)
    problem = program.problem
    scales, noise = problem.equal_scales(), 0.1 * problem.power
    history = []
    for _ in range(100):
        found = problem.active(scales, noise).condition()
        history.append(float(found.log_evidence))
        assert float(evidence_noise(found)) > 0
        scales, noise = expectation_step(found), expectation_noise(found)
    assert (np.diff(history) >= -1e-8 * np.abs(history[:-1])).all()


def test_default_is_near_the_oracle_and_knows_the_noise():
    found, oracle = [], []
    for seed in range(3):
        p = simulate_recovery(snr_db=15.0, seed=seed)
        recovered = KroneckerSBL(starts=("flat", "svd")).recover(p.y, p.dictionaries)
        found.append(nmse(recovered.mean, p.x))
        oracle.append(nmse(oracle_least_squares(p.y, p.dictionaries, p.x), p.x))
        assert support_recovery(recovered.mean, p.x) > 0.9
        assert 0.85 < float(recovered.noise) / p.noise < 1.1
        assert float(recovered.probability[p.x.abs() > 0.1].min()) > 0.5
    assert sum(found) < 1.1 * sum(oracle)


def test_batch_is_the_loop():
    problems = [
        simulate_recovery(num_atoms=8, num_measurements=(5, 6), is_complex=True, seed=s)
        for s in range(3)
    ]
    model = KroneckerSBL()
    y = torch.stack([p.y for p in problems])
    dictionaries = [torch.stack(a) for a in zip(*(p.dictionaries for p in problems), strict=True)]
    whole = model.recover(y, dictionaries)
    for b, p in enumerate(problems):
        single = model.recover(p.y, p.dictionaries)
        torch.testing.assert_close(whole.mean[b], single.mean, rtol=1e-8, atol=1e-8)
        torch.testing.assert_close(whole.noise[b], single.noise, rtol=1e-8, atol=0.0)
        torch.testing.assert_close(whole.sd[b], single.sd, rtol=1e-6, atol=1e-10)


def test_units_do_not_matter():
    p = simulate_recovery(snr_db=15.0, seed=2)
    model = KroneckerSBL(starts=("flat",))
    found = model.recover(p.y, p.dictionaries)
    scaled = model.recover(1e4 * p.y, [1e-3 * p.dictionaries[0], *p.dictionaries[1:]])
    torch.testing.assert_close(1e-7 * scaled.mean, found.mean, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(1e-8 * scaled.noise, found.noise, rtol=1e-6, atol=0.0)


def test_noiseless_limit():
    p = simulate_recovery(snr_db=300.0, seed=3)
    found = KroneckerSBL(noise="noiseless").recover(p.y, p.dictionaries)
    assert nmse(found.mean, p.x) < 1e-18
    assert bool(torch.isfinite(found.sd).all() & (found.sd >= 0).all())


def test_single_precision():
    p = simulate_recovery(snr_db=20.0, seed=1)
    double = KroneckerSBL(starts=("flat",)).recover(p.y, p.dictionaries)
    single = KroneckerSBL(starts=("flat",)).recover(
        p.y.float(), [a.float() for a in p.dictionaries]
    )
    assert single.mean.dtype == torch.float32
    assert nmse(single.mean.double(), p.x) <= 1.1 * nmse(double.mean, p.x)


def test_snapshots_share_their_support():
    options = {"num_measurements": (5, 6, 7), "num_snapshots": 4, "snr_db": 15.0, "seed": 5}
    p = simulate_recovery(**options)
    found = KroneckerSBL(starts=("flat", "svd")).recover(p.y, p.dictionaries, snapshots=True)
    assert found.mean.shape == p.x.shape
    assert support_recovery(found.mean, p.x) > 0.95


def test_draws_have_the_posterior_moments():
    p = simulate_recovery(
        num_atoms=6, num_measurements=(4, 5), num_nonzero=2, is_complex=True, snr_db=10.0, seed=6
    )
    found = KroneckerSBL(noise=p.noise).recover(p.y, p.dictionaries)
    draws = found.posterior.sample(4000, torch.Generator().manual_seed(0))["x"]
    kept = found.support
    error = (draws.mean(0) - found.mean).abs()[kept] / (found.sd[kept] / 4000**0.5)
    assert float(error.max()) < 4
    ratio = draws.var(0)[kept] / found.sd[kept].square()
    assert float((ratio - 1).abs().max()) < 4 * (1 / 4000) ** 0.5
    low, high = found.interval(0.9)
    inside = (draws.real > low.real) & (draws.real < high.real)
    assert abs(float(inside[:, kept].double().mean()) - 0.9) < 0.02


def test_wrong_order_of_factors_is_the_transpose():
    p = simulate_recovery(num_atoms=8, num_measurements=(5, 6), num_nonzero=2, seed=7)
    c = KroneckerSBL(starts=("flat",)).recover(p.y.flatten(), p.dictionaries)
    f = KroneckerSBL(starts=("flat",), order="F").recover(p.y.mT.flatten(), p.dictionaries)
    torch.testing.assert_close(c.mean, f.mean)
    torch.testing.assert_close(f.vector(), c.mean.mT.flatten())
    reverse = KroneckerSBL(starts=("flat",)).recover(p.y.mT, list(reversed(p.dictionaries)))
    torch.testing.assert_close(reverse.mean, c.mean.mT, rtol=1e-5, atol=1e-7)


def test_one_factor_and_overdetermined_factors():
    p = simulate_recovery(num_atoms=12, num_measurements=(30,), num_nonzero=3, seed=8)
    found = KroneckerSBL().recover(p.y, p.dictionaries)
    assert nmse(found.mean, p.x) < 0.05


def test_greedy_baselines():
    rows = (60, 70)  # greedy choices are right where columns are nearly orthogonal
    p = simulate_recovery(num_atoms=8, num_measurements=rows, num_nonzero=2, snr_db=40.0, seed=1)
    for x in (
        kronecker_omp(p.y, p.dictionaries, max_size=2),
        omp(p.y, p.dictionaries, noise=p.noise),
    ):
        assert nmse(x, p.x) < 1e-2


def two_paths(seed=0):
    """A 9 x 7 array, two paths between the points of a grid of 14, 20 dB."""
    g = torch.Generator().manual_seed(seed)
    angles = torch.tensor([[-0.61, 0.33], [0.18, -0.47]], dtype=torch.float64)
    gains = torch.tensor([1.0 + 0.5j, -0.8 + 0.9j], dtype=torch.complex128)
    channel = torch.einsum("mp,np,p->mn", steering(9, angles[0]), steering(7, angles[1]), gains)
    noise = float(channel.abs().square().mean()) / 100
    e = torch.randn(channel.shape, generator=g, dtype=channel.dtype)
    grid = 2 * torch.arange(14, dtype=torch.float64) / 14 - 1
    dictionaries = [GridDictionary(lambda t, n=n: steering(n, t), grid) for n in (9, 7)]
    return channel, channel + noise**0.5 * e, angles, dictionaries


def test_off_grid_angles_are_found(tmp_path):
    channel, y, angles, dictionaries = two_paths()
    on = KroneckerSBL().recover(y, [d.matrix() for d in dictionaries])
    model = KroneckerSBL()
    off = model.recover_off_grid(y, dictionaries)
    assert nmse(off.predict(), channel) < 0.3 * nmse(on.predict(), channel)
    assert int(off.support.sum()) == 2  # two paths, not the four crossings of their angles
    used = off.support.nonzero()
    found = torch.stack([grid[used[:, k]] for k, grid in enumerate(off.grids)])
    order = found[0].argsort()
    torch.testing.assert_close(found[:, order], angles, atol=0.02, rtol=0.0)
    assert off.mean.shape == (14, 14)
    model.save(tmp_path / "fit")
    again = KroneckerSBL.load(tmp_path / "fit")
    torch.testing.assert_close(again.mean, off.mean)
    torch.testing.assert_close(again.grids[1], off.grids[1])
    assert on.grids == [None, None]


def test_fixed_factor_stays_and_evidence_rises():
    _, y, _, dictionaries = two_paths(1)
    model = KroneckerSBL(starts=("flat",))
    on = model.recover(y, [d.matrix() for d in dictionaries])
    mixed = model.recover_off_grid(y, [dictionaries[0], dictionaries[1].matrix()])
    assert mixed.grids[1] is None
    assert float(mixed.log_evidence) > float(on.log_evidence)


def test_path_evidence_is_that_of_the_dense_model():
    _, y, _, dictionaries = two_paths(2)
    found = KroneckerSBL(starts=("flat",)).recover_off_grid(y, dictionaries).posterior
    assert len(found.factors) == 1  # atoms have variances of their own
    b, g = found.factors[0][0], found.scales[0][0]
    c = (b * g) @ b.mH + found.noise * torch.eye(len(b))
    quadratic = (y.flatten().conj() @ torch.linalg.solve(c, y.flatten())).real
    expected = -(torch.linalg.slogdet(np.pi * c)[1] + quadratic)
    torch.testing.assert_close(found.log_evidence[0], expected)


def test_nothing_is_refined_in_noise():
    _, _, _, dictionaries = two_paths()
    y = torch.randn(9, 7, generator=torch.Generator().manual_seed(0), dtype=torch.complex128)
    off = KroneckerSBL().recover_off_grid(y, dictionaries)
    assert float(off.mean.abs().max()) == 0.0


@pytest.mark.parametrize("method", ["evidence", "pattern_coupled", "svd"])
def test_batch_of_snapshots_with_a_shared_dictionary_and_a_silent_problem(method):
    p = simulate_recovery(num_atoms=8, num_measurements=(5, 6), num_snapshots=3, seed=1)
    g = torch.Generator().manual_seed(0)
    noise = torch.randn(p.y.shape, generator=g, dtype=p.y.dtype)
    y = torch.stack([p.y, 5 * p.y.flip(0), noise, p.y + 0.1 * noise]).reshape(2, 2, *p.y.shape)
    model = KroneckerSBL(method, starts=("flat", "svd"))
    whole = model.recover(y, p.dictionaries, snapshots=True)
    assert whole.mean.shape == (2, 2, 3, 8, 8)
    assert whole.support.shape == (2, 2, 8, 8)
    assert whole.noise.shape == whole.log_evidence.shape == (2, 2)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        single = model.recover(y[i, j], p.dictionaries, snapshots=True)
        torch.testing.assert_close(whole.mean[i, j], single.mean, rtol=1e-7, atol=1e-7)
        torch.testing.assert_close(whole.sd[i, j], single.sd, rtol=1e-5, atol=1e-8)
        torch.testing.assert_close(whole.log_evidence[i, j], single.log_evidence)
    if method == "evidence":
        assert not bool(whole.support[1, 0].any())


def recover_scattered(count, rows):
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    x = torch.zeros(8**3, dtype=torch.float64)
    x[torch.randperm(len(x), generator=generator)[:count]] = 2 + draw(count).abs()
    dictionaries = [draw(m, 8) / m**0.5 for m in rows]
    y = torch.einsum("ai,bj,ck,ijk->abc", *dictionaries, x.reshape(8, 8, 8)) + 0.1 * draw(*rows)
    return KroneckerSBL().recover(y, dictionaries).result


def test_supports_that_the_measurements_cannot_determine_are_not_trusted():
    # scattered coefficients need nearly every slice: any data fit, and the answer is wrong
    wrong = recover_scattered(12, (4, 4, 4))
    assert wrong.verdict.colour == "red"
    assert "kept slices for 4 rows of dictionary" in str(wrong.verdict)
    fine = recover_scattered(1, (4, 4, 4))
    assert fine.diagnostics["support_sizes"] == [1, 1, 1]
    assert not {"faults", "doubts"} & set(fine.diagnostics)
