"""Data-parallel SVI: the share-out is exact, ranks that fail say so, checkpoints go on."""

import signal

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from benchmarks.engines.parallel import distance, run_ranks, single
from benchmarks.engines.parallel_job import fit, parameters
from probkit.errors import ConfigurationError, DistributedError, NotPositiveDefiniteError
from probkit.infer import SVI, DataParallelSVI, Ranks
from probkit.infer.data_parallel import _ShardedElboProgram
from probkit.infer.elbo import ElboProgram
from probkit.infer.pyro_data import ModelArguments
from probkit.infer.seeding import param_scope, pyro_seed

ROWS = 301  # odd, so that two ranks have shares of different size


def mean_model(y):
    mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
    with pyro.plate("rows", len(y)):
        pyro.sample("y", dist.Normal(mu, 1.0), obs=y)


class Recorded(Ranks):
    """A rank whose partners are added by hand."""

    def sum(self, values):
        RECORD.append(values.clone())
        return values

    def share(self, value):
        return value


RECORD: list[torch.Tensor] = []


@pytest.mark.parametrize("batch_size", [None, 7])
@pytest.mark.parametrize("size", [2, 3])
def test_gradients_of_the_ranks_add_up_to_that_of_the_whole_batch(batch_size, size):
    y = torch.linspace(-1, 3, 20, dtype=torch.float64)
    seen = []
    for rank in [*range(size), None]:
        RECORD.clear()
        generator = torch.Generator().manual_seed(3)
        with param_scope():
            guide = pyro.infer.autoguide.AutoNormal(mean_model)
            common = {
                "batch_size": batch_size,
                "window": 5,
                "learning_rate": lambda number: 0.1,
                "steps": 9,
            }
            args = (guide, ModelArguments.of(y), pyro.infer.Trace_ELBO())
            whole = ElboProgram(mean_model, *args, **common)
            common["batch_size"] = batch_size or len(y)
            ranks = Recorded(rank or 0, 1 if rank is None else size)
            program = _ShardedElboProgram(whole, ranks, mean_model, *args, **common)
            state = program.initialize(generator)
            program.step(state, generator)
        seen.append(RECORD[-1])
    *parts, all_rows = seen
    assert torch.allclose(torch.stack(parts).sum(0), all_rows, rtol=1e-12, atol=0)


def test_without_torchrun_it_is_svi():
    common = {"steps": 30, "num_posterior_samples": 20, "num_diagnostic_samples": 100}
    y = torch.linspace(-1, 3, 20, dtype=torch.float64)
    ours = DataParallelSVI(**common).fit(mean_model, y, seed=1)
    plain = SVI(**common, compile="off").fit(mean_model, y, seed=1)
    for name, value in parameters(plain).items():
        np.testing.assert_allclose(parameters(ours)[name], value, rtol=1e-12)
    assert ours.diagnostics["elbo"] == pytest.approx(plain.diagnostics["elbo"], rel=1e-12)
    assert ours.provenance["settings"]["num_ranks"] == 1
    assert not ours.provenance["compile"]["compiled"]


def test_two_processes_equal_one(tmp_path):
    codes, outputs = run_ranks(2, tmp_path / "two.npz", "--rows", ROWS, "--batch", 101)
    assert codes == [0, 0], outputs
    reference, _ = single(ROWS, 101)
    assert distance(tmp_path / "two.npz", reference) <= 1e-6


def test_killed_rank_is_reported_and_the_checkpoint_goes_on(tmp_path):
    common = ["--rows", ROWS, "--checkpoint", tmp_path / "checkpoint"]
    codes, outputs = run_ranks(2, tmp_path / "lost.npz", *common, "--lose", 71)
    assert codes == [3, -signal.SIGKILL], outputs
    assert "Rank 0 of 2 has lost touch" in outputs[0]
    assert "resume=True" in outputs[0]
    # another number of ranks may go on: here it is one
    codes, outputs = run_ranks(1, tmp_path / "resumed.npz", *common)
    assert codes == [0], outputs
    reference, _ = single(ROWS, None)
    assert distance(tmp_path / "resumed.npz", reference) <= 1e-6


def test_ranks_that_disagree_are_told_apart(monkeypatch):
    monkeypatch.setattr(Ranks, "share", lambda self, value: "0123")
    with pytest.raises(DistributedError, match="differ from the first in data"):
        Ranks(1, 1).require_equal("data", "4567")


def test_more_ranks_than_rows_are_refused():
    whole_args = (lambda y: None, ModelArguments.of(torch.zeros(2)), pyro.infer.Trace_ELBO())
    common = {"batch_size": 2, "window": 5, "learning_rate": lambda number: 0.1, "steps": 9}
    whole = ElboProgram(mean_model, *whole_args, **common)
    with pytest.raises(ConfigurationError, match="more processes than rows"):
        _ShardedElboProgram(whole, Ranks(0, 3), mean_model, *whole_args, **common)


def test_unknowns_of_single_rows_are_refused():
    def local(y):
        with pyro.plate("rows", len(y)):
            z = pyro.sample("z", dist.Normal(torch.zeros((), dtype=y.dtype), 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    with pytest.raises(ConfigurationError, match="'z'"):
        DataParallelSVI(steps=3).fit(local, torch.zeros(5, dtype=torch.float64))


def test_groups_may_have_unknowns():
    with pyro_seed(0):
        result = fit(DataParallelSVI(steps=5, num_diagnostic_samples=0), 60, 10)
    assert result.posterior.mean()["theta"].shape == (10,)


def test_rank_without_a_gradient_does_not_leave_the_others_waiting():
    def broken(y):
        mu = pyro.sample("mu", dist.Normal(y.new_zeros(()), 10.0))
        if started:
            torch.linalg.cholesky(-torch.eye(2))
        with pyro.plate("rows", len(y)):
            pyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    started: list[bool] = []
    RECORD.clear()
    whole_args = (
        pyro.infer.autoguide.AutoNormal(broken),
        ModelArguments.of(torch.zeros(6)),
        pyro.infer.Trace_ELBO(),
    )
    common = {"batch_size": 6, "window": 5, "learning_rate": lambda number: 0.1, "steps": 9}
    generator = torch.Generator().manual_seed(0)
    with param_scope():
        whole = ElboProgram(broken, *whole_args, **common)
        program = _ShardedElboProgram(whole, Recorded(0, 2), broken, *whole_args, **common)
        state = program.initialize(generator)
        state, _ = program.step(state, generator)
        started.append(True)
        with pytest.raises(NotPositiveDefiniteError):
            program.step(state, generator)
    assert len(RECORD[-1]) == len(RECORD[0]) == 3
    assert RECORD[-1].isnan().all()
