"""R9, R10, R13, R15: guides of a fractional bridge against exact answers; solvers; memory."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from benchmarks.frame import Context, Line, Unavailable, row
from probkit.errors import ConfigurationError
from probkit.fractional import ControlGuide, FractionalSDE, MarkovApproxFBM, MarkovGaussianGuide
from probkit.sde import solve_sde
from probkit.statespace.fractional_l2 import geometric_rates

F64 = torch.float64
NOISE = 0.1
CHUNK = 10_000


def bridge(hurst: float, reversion: float = 0.0, num_paths: int = 32) -> FractionalSDE:
    """The published bridge: x(0) = 0, one observation x(2) = 0, weights of the authors."""
    process = MarkovApproxFBM(
        hurst, weights="l2", rates=geometric_rates(5, 0.05, 20.0), horizon=6.0, normalize="mvn"
    )
    return FractionalSDE(
        lambda t, x: -reversion * x,
        1.0,
        process,
        dt=0.01,
        num_steps=200,
        observed=torch.tensor([200]),
        noise=NOISE,
        num_paths=num_paths,
    )


def state_covariances(process: MarkovApproxFBM, reversion: float, times: Tensor) -> Tensor:
    """Cov(x(s), x(t)) in continuous time, by matrix exponentials of (x, Y), (T, T)."""
    g, w = process.rates, process.weights
    size = len(g) + 1
    A = torch.zeros(size, size, dtype=F64)
    A[0, 0], A[0, 1:] = -reversion, -w * g
    A[1:, 1:] = -torch.diag(g)
    b = torch.ones(size, dtype=F64)
    b[0] = w.sum()
    P = torch.zeros(size, size, dtype=F64)
    P[1:, 1:] = process.initial_covariance
    h = float(times[0])  # an even grid
    block = torch.zeros(2 * size, 2 * size, dtype=F64)
    block[:size, :size], block[:size, size:] = -A, b[:, None] * b
    block[size:, size:] = A.mT
    moved = torch.linalg.matrix_exp(h * block)
    F = moved[size:, size:].mT
    Q = F @ moved[:size, size:]
    count = len(times)
    found = torch.zeros(count, count, dtype=F64)
    for i in range(count):
        P = F @ P @ F.mT + Q
        ahead = P
        for j in range(i, count):
            found[i, j] = found[j, i] = ahead[0, 0]
            ahead = F @ ahead
    return found


@row("R9", "default guide on the bridge: ELBO against the exact evidence, sd against the smoother")
def exact_guide(context: Context) -> Iterator[Line]:
    chunks = context.size(10, 1)
    worst, spread, slowest = 0.0, 0.0, 0.0
    for hurst, reversion in ((0.2, 0.0), (0.5, 0.0), (0.8, 0.0), (0.8, 1.0)):
        sde = bridge(hurst, reversion)
        times = 0.1 * torch.arange(1, 21, dtype=F64)
        covariance = state_covariances(sde.process, reversion, times)
        total = covariance[-1, -1] + NOISE**2
        exact = float(-0.5 * torch.log(2 * math.pi * total))
        sd = (covariance.diagonal() - covariance[:, -1] ** 2 / total).sqrt()
        start = time.process_time()
        guide = MarkovGaussianGuide(sde, torch.zeros(1, 1, dtype=F64))
        elbo, squares, sums = 0.0, torch.zeros(20, dtype=F64), torch.zeros(20, dtype=F64)
        with torch.no_grad():
            for seed in range(chunks):
                drawn = guide.sample(CHUNK, seed=seed)
                elbo += float(drawn.elbo) / chunks
                seen = drawn.path.x[:, 10::10, 0]
                squares, sums = squares + seen.square().sum(0), sums + seen.sum(0)
        slowest = max(slowest, time.process_time() - start)
        count = chunks * CHUNK
        found = (squares / count - (sums / count).square()).sqrt()
        worst = max(worst, abs(elbo - exact))
        spread = max(spread, float((found / sd - 1).abs().max()))
    yield Line(
        "evidence", "largest gap of ELBO and exact evidence, nats (published: .24, 9.2)", worst
    )
    yield Line("sd", "largest relative error of the posterior sd at 20 times", spread)
    yield Line("seconds", "CPU s for 1e5 paths of 200 steps", slowest)


@row("R10", "control guide: the optimum before any training; time of a gradient against torchsde")
def control_guide(context: Context) -> Iterator[Line]:
    y = torch.zeros(1, 1, dtype=F64)
    constant = math.log(NOISE * math.sqrt(2 * math.pi))
    for key, hurst, best in (("smooth", 0.8, 2.7506), ("rough", 0.2, 7.6948)):
        guide = ControlGuide(bridge(hurst), y)
        chunks = context.size(10, 1)
        with torch.no_grad():
            loss = -sum(float(guide.sample(CHUNK, seed=s).elbo) for s in range(chunks)) / chunks
        yield Line(key, f"gap to the Riccati optimum, H = {hurst}", loss - constant - best)
    ours, direct, adjoint = _gradient_times(context)
    yield Line("direct", "own loop / torchsde Euler, CPU ms a gradient", ours, direct)
    yield Line("adjoint", "own loop / torchsde adjoint, CPU ms a gradient", ours, adjoint)


class _Control(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Sequential(
            *(torch.nn.Linear(8, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh()),
            torch.nn.Linear(64, 1),
        ).double()

    def forward(self, t: Tensor, x: Tensor, y: Tensor) -> Tensor:
        clock = torch.stack([torch.sin(t), torch.cos(t)]).expand(len(x), 2)
        found: Tensor = self.net(torch.cat([clock, x, y.flatten(1)], -1))
        return found


def _gradient_times(context: Context) -> tuple[float, float, float]:
    sde, control = bridge(0.8), _Control()
    guide = ControlGuide(sde, torch.zeros(1, 1, dtype=F64), network=control)
    times = 0.01 * torch.arange(context.size(201, 21), dtype=F64)
    start = torch.zeros(32, 1, dtype=F64)

    def own() -> None:
        (-guide.sample(32).elbo).backward()

    def theirs(adjoint: bool) -> None:
        from probkit.sde.torchsde_backend import simulate_torchsde

        path, kl = simulate_torchsde(
            _Still(),
            _Unit(),
            sde.process,
            times,
            start,
            dt=0.01,
            generator=torch.Generator().manual_seed(0),
            control=control,
            adjoint=adjoint,
        )
        (path[:, -1, 0].square() / (2 * NOISE**2) + kl).mean().backward()

    found = []
    for job in (own, lambda: theirs(False), lambda: theirs(True)):
        found.append(1e3 * _least(job, 3))
    return found[0], found[1], found[2]


class _Still(torch.nn.Module):
    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


class _Unit(torch.nn.Module):
    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return torch.ones_like(x)


def _least(job: Callable[[], object], repeats: int) -> float:
    best = math.inf
    for _ in range(repeats):
        start = time.process_time()
        job()
        best = min(best, time.process_time() - start)
    return best


_MEMORY = """
import sys
import torch
from probkit.sde import solve_sde
from probkit.statespace.fractional import MarkovApproxFBM
steps, segment = int(sys.argv[1]), int(sys.argv[2]) or None
F64 = torch.float64
net = torch.nn.Sequential(
    torch.nn.Linear(1, 64), torch.nn.Tanh(), torch.nn.Linear(64, 64), torch.nn.Tanh(),
    torch.nn.Linear(64, 1),
).double()
process = MarkovApproxFBM(0.7, num_steps=steps, dt=0.01)
def gradient(count, cut):
    times = 0.01 * torch.arange(count + 1, dtype=F64)
    path, _ = solve_sde(
        lambda t, x: net(x), lambda t, x: torch.ones_like(x), process, times,
        torch.zeros(64, 1, dtype=F64), segment=cut,
    )
    path[:, -1].square().sum().backward()
def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name))
gradient(10, 5)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")  # the peak starts anew
before = status("VmRSS")
gradient(steps, segment)
print(status("VmHWM") - before)
"""


def _peak(steps: int, segment: int) -> float:
    """Growth of a fresh process's peak memory by one gradient, MB."""
    command = [sys.executable, "-c", _MEMORY, str(steps), str(segment)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout) / 1024


@row("R13", "memory of the gradient of a long path, 64 paths, K = 8, 64-64 network")
def memory(context: Context) -> Iterator[Line]:
    if not sys.platform.startswith("linux"):
        raise Unavailable("peak memory is read from /proc")
    steps = context.size(10_000, 1_000)
    direct, cut = _peak(steps, 0), _peak(steps, round(math.sqrt(steps)))
    yield Line("peak", f"checkpointed / direct peak, {steps} steps, MB", cut, direct)


@row("R15", "exact steps and torchsde have the same law")
def backends(context: Context) -> Iterator[Line]:
    count = context.size(20_000, 1_000)
    process = MarkovApproxFBM(
        0.7, weights="l2", rates=geometric_rates(4, 0.1, 10.0), horizon=1.0, normalize="mvn"
    )
    times = torch.linspace(0, 1, 201, dtype=F64)
    start = torch.zeros(count, 1, dtype=F64)
    ends = []
    for backend in ("exact", "torchsde"):
        path, _ = solve_sde(
            lambda t, x: 1 - x, lambda t, x: 0.5 + 0 * x, process, times, start, backend=backend
        )
        ends.append(path[:, -1, 0])
    first, second = ends
    gaps = {}
    for name, power in (("mean", 1), ("variance", 2)):
        a, b = ((v - (v.mean() if power == 2 else 0)) ** power for v in (first, second))
        error = ((a.var() + b.var()) / count).sqrt()
        gaps[name] = float((a.mean() - b.mean()).abs() / error)
    yield Line("mean", "difference of means of X(1), standard errors", gaps["mean"])
    yield Line("variance", "difference of variances, standard errors", gaps["variance"])
    refused = 0.0
    try:
        solve_sde(
            *(lambda t, x: -x, lambda t, x: 1 + 0 * x, process, times, start[:2]),
            backend="torchsde",
            method="reversible_heun",
        )
    except ConfigurationError:
        refused = 1.0
    yield Line("refused", "reversible Heun is refused", refused)
