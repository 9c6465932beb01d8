"""The contracts for users' own engines and kernels: they pass what is right and catch faults."""

from dataclasses import dataclass

import pytest
import torch

import probkit
from probkit.errors import ConfigurationError
from probkit.infer import CAVI, SVI, DrawsPosterior, FitResult, StepInfo
from probkit.infer.engine import Run
from probkit.kernels import KERNEL_NAMES, MaternKernel, kernel_from_name
from probkit.testing import check_engine, check_markov_kernel
from tests.toy_models import Walk


class Bowl:
    """A log density of two independent normals."""

    def log_density(self, x):
        return -0.5 * (x - 1).square().sum() / 0.3**2


@dataclass(frozen=True)
class Metropolis:
    """Random-walk Metropolis in the one loop, with a fault to be found."""

    num_draws: int = 60
    fault: str = ""

    def fit(self, model, data=None, **options):
        run = Run(
            "Metropolis",
            {"num_draws": self.num_draws},
            ("num_draws",),
            options.pop("seed"),
            "",
            every=2,
            **options,
        )

        def initial(generator):
            x = torch.zeros(2, dtype=torch.float64)
            return {"x": x, "draws": x.new_zeros(self.num_draws, 2), "count": torch.tensor(0)}

        def step(state, generator):
            source = None if self.fault == "global generator" else generator
            noise = torch.randn(2, generator=source, dtype=torch.float64)
            proposal = state["x"] + 0.4 * noise
            gain = model.log_density(proposal) - model.log_density(state["x"])
            uniform = torch.rand((), generator=generator, dtype=torch.float64)
            x = proposal if bool(uniform.log() < gain) else state["x"]
            draws, count = state["draws"].clone(), int(state["count"])
            draws[count] = x
            new = {"x": x, "draws": draws, "count": torch.tensor(count + 1)}
            return new, StepInfo(float(model.log_density(x)))

        if self.fault == "hides exceptions":
            run = Run(**{**run.__dict__, "callbacks": ()})
        if self.fault == "forgets the checkpoint":
            run = Run(**{**run.__dict__, "resume": False, "seed": 3 + run.resume})
        outcome = run.loop(step, initial, self.num_draws)
        posterior = DrawsPosterior({"x": outcome.state["draws"][None]})
        return FitResult(
            outcome.status,
            posterior,
            outcome.history,
            {},
            run.record(outcome.state),
            outcome.detail,
        )


def test_an_engine_of_the_users_own_passes_and_is_taken_by_fit():
    found = check_engine(Metropolis(), Bowl, kill_after=31)
    assert found.provenance["engine"] == "Metropolis"
    long = probkit.fit(Bowl(), engine=Metropolis(4000), seed=1)
    assert bool((long.posterior.mean()["x"] - 1).abs().max() < 0.05)
    assert bool((long.posterior.sd()["x"] / 0.3 - 1).abs().max() < 0.1)


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ("global generator", "generator was used"),
        ("hides exceptions", "hid an exception"),
        ("forgets the checkpoint", "killed and resumed"),
    ],
)
def test_faults_of_an_engine_are_named(fault, text):
    with pytest.raises(AssertionError, match=text):
        check_engine(Metropolis(fault=fault), Bowl, kill_after=31)


def test_the_projects_engines_pass():
    check_engine(CAVI(max_sweeps=40, checkpoint_every=3), Walk, kill_after=11)


def test_a_class_is_no_engine():
    with pytest.raises(ConfigurationError, match="engine object"):
        probkit.fit(Bowl(), engine=SVI)


@pytest.mark.parametrize("name", [n for n in KERNEL_NAMES if n not in ("categorical",)])
def test_the_projects_kernels_pass(name):
    check_markov_kernel(kernel_from_name(name), tolerance=1e-8)


def test_faults_of_a_kernel_are_named():
    class Wrong(MaternKernel):
        def covariance(self, x1, x2):
            return 1.01 * super().covariance(x1, x2)

    with pytest.raises(AssertionError, match=r"of the chain and of the kernel differ by 9\.9"):
        check_markov_kernel(Wrong(1.5))

    class Detached(MaternKernel):
        def covariance(self, x1, x2):
            return super().covariance(x1, x2).detach() + 0 * self.raw_lengthscale.sum()

    with pytest.raises(AssertionError, match="gradients in raw_lengthscale"):
        check_markov_kernel(Detached(1.5))
