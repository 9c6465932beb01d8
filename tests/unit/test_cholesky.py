import pytest
import torch

from probkit.errors import NotPositiveDefiniteError, PrecisionWarning
from probkit.linalg.cholesky import safe_cholesky


def test_no_jitter_when_none_is_needed():
    matrix = torch.tensor([[[4.0, 1.0], [1.0, 3.0]]], dtype=torch.float64)
    factor, jitter = safe_cholesky(matrix, where="test")
    assert jitter == 0.0
    torch.testing.assert_close(factor @ factor.mT, matrix)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_jitter_is_reported_with_the_duplicate_rows(dtype):
    points = torch.tensor([0.0, 0.3, 0.7, 0.3], dtype=dtype)
    matrix = 2 * torch.exp(-((points[:, None] - points) ** 2))
    matrix[1, 1] -= 20 * torch.finfo(dtype).eps
    with pytest.warns(PrecisionWarning, match=r"kernel.*rows 1 and 3"):
        factor, jitter = safe_cholesky(matrix, where="kernel")
    assert factor.dtype == dtype
    assert 0 < jitter < 1e8 * torch.finfo(dtype).eps
    torch.testing.assert_close(factor @ factor.mT, matrix + jitter * torch.eye(4, dtype=dtype))


def test_jitter_goes_to_the_matrices_that_need_it():
    singular = torch.tensor([[1.0, 1.0], [1.0, 1.0 - 1e-14]], dtype=torch.float64)
    fine = 1e-6 * torch.tensor([[1.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    matrix = torch.stack([1e12 * singular, fine, 1e-3 * singular])
    with pytest.warns(PrecisionWarning, match="rows 0 and 1"):
        factor, jitter = safe_cholesky(matrix, where="batch")
    torch.testing.assert_close(factor[1], torch.linalg.cholesky(fine), rtol=0, atol=0)
    excess = (factor @ factor.mT - matrix).diagonal(dim1=-2, dim2=-1)
    assert 0 < jitter < 1.0  # of a matrix of size 1e12
    assert float(excess[2].max()) < 1e-14


@pytest.mark.parametrize(
    ("matrix", "cause"),
    [
        ([[1.0, 2.0], [2.0, 1.0]], "smallest eigenvalue is -1"),
        ([[1.0, 0.0], [0.0, -1.0]], "diagonal entry in row 1"),
        ([[1.0, float("nan")], [0.0, 1.0]], "row 0, column 1 is nan"),
        ([[1.0, 0.5], [3.0, 1.0]], "not symmetric"),
    ],
)
def test_failures_are_diagnosed(matrix, cause):
    with pytest.raises(NotPositiveDefiniteError, match=cause):
        safe_cholesky(torch.tensor(matrix, dtype=torch.float64), where="test")


def test_gradient_passes_through():
    matrix = torch.tensor([[4.0, 1.0], [1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    factor, _ = safe_cholesky(matrix, where="test")
    (2 * factor.diagonal().log().sum()).backward()
    torch.testing.assert_close(matrix.grad, torch.linalg.inv(matrix.detach()))
