import pytest
import torch
from linear_operator import settings, to_linear_operator

from probkit.errors import ConfigurationError
from probkit.linalg.exact import assert_exact, exact_linalg, is_exact
from probkit.random import as_generator


@pytest.mark.parametrize("size", [790, 810])
def test_both_sides_of_the_upstream_limit(size):
    x = torch.linspace(0, 1, size, dtype=torch.float64)
    matrix = torch.exp(-(x[:, None] - x).abs() / 0.1) + 0.1 * torch.eye(size, dtype=torch.float64)
    rhs = torch.randn(size, 1, generator=as_generator(0), dtype=torch.float64)
    with exact_linalg():
        quadratic, logdet = to_linear_operator(matrix).inv_quad_logdet(rhs, logdet=True)
    expected = (rhs * torch.linalg.solve(matrix, rhs)).sum()
    torch.testing.assert_close(quadratic, expected, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(logdet, torch.logdet(matrix), rtol=1e-10, atol=0.0)


def test_settings_are_restored_also_after_an_error():
    before = settings.max_cholesky_size.value()
    with pytest.raises(ValueError, match="stop"), exact_linalg():
        assert is_exact(10**9)
        raise ValueError("stop")
    assert settings.max_cholesky_size.value() == before
    assert not is_exact(before + 1)


def test_guard_refuses_an_estimate():
    with pytest.raises(ConfigurationError, match=r"evidence.*801 rows"):
        assert_exact(801, where="evidence")
    assert_exact(800, where="evidence")
    with exact_linalg():
        assert_exact(801, where="evidence")
