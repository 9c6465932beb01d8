"""The native filter: values and gradients of the torch one, which serves where it cannot."""

import math

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from probkit.errors import NotPositiveDefiniteError
from probkit.fractional import batch_filter, native_filter, series_log_likelihood
from probkit.fractional.batch_filter import filter_batch
from probkit.fractional.likelihood import filter_series
from probkit.fractional.model import log_scale
from probkit.fractional.native_system import quick_system
from probkit.fractional.quick_filter import filter_quickly, native_pieces
from probkit.fractional.series import prepare_series
from probkit.fractional.system import FractionalSystem, fractional_system
from probkit.statespace.fractional_noise import sample_fgn
from probkit.statespace.fractional_tables import law_table

F64 = {"dtype": torch.float64}
NATIVE = native_filter._library() is not None
needs_compiler = pytest.mark.skipif(not NATIVE, reason="there is no C++ compiler")


def example(kind, uneven, missing, count=2):
    increments = sample_fgn(0.3, 40, count, seed=0)
    values = increments if kind == "increments" else increments.cumsum(1)
    times = None
    if uneven:
        generator = torch.Generator().manual_seed(1)
        times = (0.5 + torch.rand(40, generator=generator, **F64)).cumsum(0)
    if missing:
        values[:, 7:9] = math.nan
    return prepare_series(values, times, kind)


def parameters():
    start = [0.4, 0.1, -1.0, -3.0]
    return [torch.tensor(value, **F64, requires_grad=True) for value in start]


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "uneven", "missing", "reversion"),
    [
        ("levels", False, False, False),
        ("levels", True, True, True),
        ("increments", False, True, False),
    ],
)
def test_value_and_score_are_those_of_torch(kind, uneven, missing, reversion):
    series = example(kind, uneven, missing)
    p = parameters()

    def slow():
        rate = p[3].exp() if reversion else None
        pieces = filter_series(fractional_system(p[0], p[2].exp(), rate, series.span), series)
        count = pieces.num_observed * (math.log(2 * math.pi) + 2 * p[1]) + pieces.log_variance
        return -0.5 * (2 * count + pieces.quadratic.sum() * torch.exp(-2 * p[1]))

    quick = series_log_likelihood(series, *p[:3], p[3] if reversion else None)
    expected = slow()
    torch.testing.assert_close(quick, expected, rtol=1e-12, atol=1e-10)
    used = p if reversion else p[:3]
    found, wanted = torch.autograd.grad(quick, used), torch.autograd.grad(expected, used)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@needs_compiler
@pytest.mark.parametrize("kind", ["levels", "increments"])
@pytest.mark.parametrize("modes", [2, 7, 16])  # two registers, more, and more than are unrolled
def test_every_part_of_the_system_has_its_derivative(kind, modes):
    series = example(kind, kind == "levels", True)
    rates = torch.logspace(-2, 0.5, modes, **F64)
    system = (rates, torch.linspace(-1, 2, modes, **F64), *torch.tensor([0.3, 0.5], **F64))
    weights = torch.tensor([1.0, 2.0], **F64)

    def value(*system):
        log_variance, quadratic = native_pieces(FractionalSystem(*system), series)
        return log_variance + (quadratic * weights).sum()

    def slow(*system):
        pieces = filter_series(FractionalSystem(*system), series)
        return pieces.log_variance + (pieces.quadratic * weights).sum()

    system = [x.clone().requires_grad_() for x in system]
    found, expected = value(*system), slow(*system)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-10)
    slopes = (torch.autograd.grad(x, system) for x in (found, expected))
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@needs_compiler
def test_second_derivatives_and_maps_take_the_torch_filter():
    series = example("increments", False, False)

    def value(h):
        return series_log_likelihood(series, h, h.new_zeros(()), h.new_zeros(()), None)

    h = torch.tensor(0.4, **F64)
    step = 1e-4
    curvature = torch.func.hessian(value)(h)
    expected = (value(h + step) + value(h - step) - 2 * value(h)) / step**2
    assert float(curvature) == pytest.approx(float(expected), rel=1e-4)
    many = torch.func.vmap(value)(torch.stack([h, h + step]))
    torch.testing.assert_close(many[1], value(h + step))


@needs_compiler
@pytest.mark.parametrize("profile", [False, True])
def test_a_gradient_that_is_recorded_has_the_second_derivatives_of_torch(profile):
    series = example("levels", True, True)

    def value(p):
        system = fractional_system(p[0], p[1].exp(), p[2].exp(), series.span)
        return filter_quickly(system, series, None if profile else p[3].exp())

    p = torch.tensor([0.4, -1.0, -3.0, 0.2], **F64, requires_grad=True)
    expected = torch.func.hessian(value)(p.detach())
    torch.testing.assert_close(torch.autograd.functional.hessian(value, p), expected)


@needs_compiler
def test_a_variance_that_is_not_positive_is_named():
    series = example("increments", False, False)
    system = fractional_system(torch.tensor(0.3, **F64), torch.tensor(-9.0, **F64), None, 40)
    with pytest.raises(NotPositiveDefiniteError, match="observation 0"):
        filter_quickly(FractionalSystem(*system), series, torch.ones((), **F64))


def test_without_a_compiler_torch_filters(monkeypatch):
    series = example("levels", False, False)
    p = [x.detach() for x in parameters()]
    expected = series_log_likelihood(series, *p[:3], None)
    monkeypatch.setattr(native_filter, "_library", lambda: None)
    torch.testing.assert_close(series_log_likelihood(series, *p[:3], None), expected)


@needs_compiler
@pytest.mark.parametrize(
    ("kind", "uneven", "missing", "reversion"),
    [
        ("levels", False, True, False),
        ("levels", True, True, True),
        ("increments", False, True, False),
    ],
)
def test_a_batch_of_parameters_and_series_is_filtered_as_by_torch(kind, uneven, missing, reversion):
    series = example(kind, uneven, missing, 11)  # neither is a multiple of a register
    hurst = torch.linspace(0.05, 0.95, 5, **F64)
    rate = torch.logspace(-2, 0.5, 5, **F64) if reversion else None
    system = fractional_system(hurst, torch.linspace(0, 2, 5, **F64), rate, series.span)
    found, expected = filter_batch(system, series), filter_series(system, series)
    assert found.num_observed == expected.num_observed
    for name in ("log_variance", "quadratic", "mean", "covariance"):
        one, other = getattr(found, name), getattr(expected, name)
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9, msg=name)


@needs_compiler
def test_a_batch_names_a_variance_that_is_not_positive():
    series = example("increments", False, False)
    hurst, noise = torch.tensor([0.3, 0.4], **F64), torch.tensor([0.0, -9.0], **F64)
    with pytest.raises(NotPositiveDefiniteError, match="observation 0"):
        filter_batch(fractional_system(hurst, noise, None, 40), series)


def test_without_a_compiler_torch_filters_a_batch(monkeypatch):
    series = example("levels", True, False)
    hurst = torch.tensor([0.2, 0.6], **F64)
    system = fractional_system(hurst, torch.zeros_like(hurst), None, series.span)
    expected = filter_batch(system, series)
    monkeypatch.setattr(batch_filter, "_library", lambda: None)
    torch.testing.assert_close(filter_batch(system, series).quadratic, expected.quadratic)


@needs_compiler
@pytest.mark.parametrize("profile", [False, True])
def test_maps_and_first_derivatives_take_one_operator(profile):
    series = example("levels", True, True)

    def value(h):
        system = fractional_system(h, 0.5 * torch.ones_like(h), None, series.span)
        return filter_quickly(system, series, None if profile else 2 * torch.ones_like(h))

    graph = make_fx(torch.func.functionalize(torch.func.grad(value)))(torch.tensor(0.4, **F64))
    targets = [str(node.target) for node in graph.graph.nodes]
    assert targets.count("probkit.fractional_filter.default") == 1
    hurst = torch.tensor([0.2, 0.7], **F64)
    slopes, values = torch.func.vmap(torch.func.grad_and_value(value))(hurst)
    for h, slope, found in zip(hurst, slopes, values, strict=True):
        h = h.clone().requires_grad_()
        expected = value(h)
        torch.testing.assert_close(found, expected.detach())
        torch.testing.assert_close(slope, torch.autograd.grad(expected, h)[0])


@needs_compiler
def test_given_the_best_scale_the_likelihood_is_the_profile():
    series = example("increments", False, False)
    p = parameters()[:3]
    system = fractional_system(p[0], p[2].exp(), None, series.span)
    profile = filter_quickly(system, series, None)
    pieces = filter_series(system, series)
    expected = 2 * (pieces.log_variance + 40 * pieces.quadratic.sum().log())
    torch.testing.assert_close(profile, expected)
    draws = {"hurst": p[0][None], "log_noise": p[2][None], "scale_offset": torch.ones(1, **F64)}
    scale = log_scale(series, draws)
    torch.testing.assert_close(scale[0], 1 + 0.5 * torch.log(pieces.quadratic.sum() / 80))


@needs_compiler
def test_the_operator_keeps_the_rules_of_torch():
    series = example("levels", False, True)
    system = fractional_system(*(torch.tensor(x, **F64) for x in (0.4, 0.2)), None, series.span)
    points = [x[None].expand(3, *x.shape) for x in (*system, torch.ones((), **F64))]
    data = native_filter.native_data(series)
    torch.library.opcheck(
        torch.ops.probkit.fractional_filter.default,
        (*points, *data),
        test_utils=("test_schema", "test_faketensor"),
    )


@needs_compiler
@pytest.mark.parametrize("index", [0.03, 0.3, 0.6, 0.62, 0.97])
@pytest.mark.parametrize("theta", [None, 0.05, "close"])
def test_the_native_system_is_that_of_torch(index, theta):
    if theta == "close":  # 1e-3 of the reversion away from a rate
        theta = float(law_table(500)[0][3]) * (1 + 1e-3)
    hurst = torch.tensor(index, **F64, requires_grad=True)
    rate = None if theta is None else torch.tensor(theta, **F64, requires_grad=True)
    wanted = [hurst] if rate is None else [hurst, rate]
    noise = torch.zeros((), **F64)

    def weighted(system):
        return sum((x * torch.linspace(1, 2, x.numel(), **F64)).square().sum() for x in system[:3])

    pairs = []
    for build in (quick_system, fractional_system):
        system = build(hurst, noise, rate, 500)
        slopes = torch.autograd.grad(weighted(system), wanted, create_graph=True)
        curvature = torch.autograd.grad(slopes[0], hurst)
        pairs.append((*system, *slopes, *curvature))
    for one, other in zip(*pairs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
    plain = torch.autograd.grad(weighted(quick_system(hurst, noise, rate, 500)), wanted)
    for one, other in zip(plain, pairs[1][4:], strict=False):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-13)
