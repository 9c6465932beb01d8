"""An exact equation beside noisy data or conditions: dense conditioning and least squares."""

import math

import torch

from probkit.pde import PDE, Box, Condition, GPSolver, Problem, Term

LAPLACE = PDE([Term(1.0, (2,))])
X = torch.linspace(0.0, 3.0, 7, dtype=torch.float64)
ENDS = [Condition.dirichlet((0, 0)), Condition.dirichlet((0, 1), math.sin(3.0))]


def line(ends=ENDS, data=None):
    problem = Problem(LAPLACE, Box([(0.0, 3.0)], 60), ends, lambda x: -torch.sin(x), data=data)
    return GPSolver().fit(problem)


class Squared:
    """Spectral density of exp(-d^2)."""

    def spectral_density(self, frequency):
        return math.sqrt(math.pi) * torch.exp(-(math.pi**2) * frequency.square())


def test_dense_conditioning_under_a_given_prior():
    at = torch.tensor([0.4, 1.7], dtype=torch.float64)
    y, sd = torch.tensor([0.9, 1.6], dtype=torch.float64), 0.3
    ends = [Condition.dirichlet((0, 0), 0.5, noise=0.2), ENDS[1]]
    solver = GPSolver(prior=Squared(), band_limit=3.0, extension=4.0)
    box = Box([(0.0, 3.0)], 12)
    problem = Problem(LAPLACE, box, ends, -torch.sin(box.axes()[0]), data=(at, y, sd))
    found = solver.fit(problem)

    def kernel(a, b, order):
        d = (a[:, None] - b[None]).clone().requires_grad_(True)
        k = torch.exp(-(d**2))
        for _ in range(order):
            k = torch.autograd.grad(k.sum(), d, create_graph=True)[0]
        return k.detach()

    x, beside = box.points()[:, 0], torch.cat([torch.tensor([0.0, 3.0]).double(), at])
    level = 1e-9 * max(1.0, 1.6)  # what counts as exact; any below the noise will do
    noise = torch.tensor([level] * 12 + [0.2, level, sd, sd], dtype=torch.float64).square()
    upper = torch.cat([kernel(x, x, 4), kernel(x, beside, 2)], 1)
    lower = torch.cat([kernel(beside, x, 2), kernel(beside, beside, 0)], 1)
    gram = torch.cat([upper, lower]) + noise.diag()
    cross = torch.cat([kernel(X, x, 2), kernel(X, beside, 0)], 1)
    gain = torch.linalg.solve(gram, cross.mT).mT
    wanted = torch.cat([-torch.sin(x), torch.tensor([0.5, math.sin(3.0)]).double(), y])
    torch.testing.assert_close(found.mean(X), gain @ wanted, rtol=0, atol=1e-5)
    variance = 1 - (gain * cross).sum(1)
    torch.testing.assert_close(found.variance(X), variance, rtol=0, atol=1e-6)


def test_noisy_data_do_not_override_an_exact_equation():
    found = line(data=([1.5], [1.5], 0.3))
    torch.testing.assert_close(found.mean(X), torch.sin(X), rtol=0, atol=1e-8)
    assert float(found.sd(X).max()) < 1e-6
    assert not found.diagnostics["over_determined"]


def test_what_an_exact_equation_leaves_free_is_least_squares():
    generator = torch.Generator().manual_seed(3)
    at = torch.linspace(0.1, 2.9, 25, dtype=torch.float64)
    noise = 0.3 * torch.randn(25, generator=generator, dtype=torch.float64)
    y = torch.sin(at) + 0.7 - 0.4 * at + noise
    found = line([], (at, y, 0.3))
    design, wanted = (torch.stack([torch.ones_like(x), x], 1) for x in (at, X))
    inverse = torch.linalg.inv(design.mT @ design)
    mean = torch.sin(X) + wanted @ inverse @ design.mT @ (y - torch.sin(at))
    sd = 0.3 * (wanted @ inverse * wanted).sum(1).sqrt()
    torch.testing.assert_close(found.mean(X), mean, rtol=0, atol=1e-4)
    torch.testing.assert_close(found.sd(X), sd, rtol=1e-4, atol=0)
    # a noisy end is known as well as it was observed
    found = line([Condition.dirichlet((0, 0), 0.5, noise=0.5), ENDS[1]])
    torch.testing.assert_close(found.mean(X), torch.sin(X) + 0.5 * (1 - X / 3), rtol=0, atol=1e-3)
    torch.testing.assert_close(found.sd(X), 0.5 * (1 - X / 3), rtol=0, atol=1e-3)


def test_noisy_data_on_a_square():
    def exact(x):
        return torch.sin(2 * x[:, 0] + 0.3) * torch.exp(x[:, 1])

    faces = [Condition.dirichlet((axis, side), exact) for axis in (0, 1) for side in (0, 1)]
    pde = PDE([Term(1.0, (2, 0)), Term(1.0, (0, 2))])
    at = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    problem = Problem(
        pde, Box([(0.0, 1.0)] * 2, 32), faces, lambda x: -3 * exact(x), data=(at, [2.0], 0.5)
    )
    found = GPSolver().fit(problem)
    assert found.diagnostics["method"] == "rows"
    error = abs(float((found.mean(at) - exact(at))[0]))
    assert error < 1e-4
    assert error < 5 * float(found.sd(at)[0])
