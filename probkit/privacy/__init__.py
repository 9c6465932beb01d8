"""Differential privacy: exact noise, budgets, an accountant, audits."""

from __future__ import annotations

from probkit.privacy.accountant import PrivacyAccountant
from probkit.privacy.audit import AuditResult, distinguishing_audit, gradient_audit
from probkit.privacy.budget import Budget, delta_of_zcdp, zcdp_of_approximate
from probkit.privacy.errors import (
    AccuracyWarning,
    BudgetExceededError,
    NotPrivateWarning,
    PrivacyError,
    PrivateDataError,
    ReleaseFileError,
)
from probkit.privacy.mechanism import Blocks, Noise, plan_noise
from probkit.privacy.samplers import discrete_gaussian, discrete_laplace

__all__ = [
    "AccuracyWarning",
    "AuditResult",
    "Blocks",
    "Budget",
    "BudgetExceededError",
    "Noise",
    "NotPrivateWarning",
    "PrivacyAccountant",
    "PrivacyError",
    "PrivateDataError",
    "ReleaseFileError",
    "delta_of_zcdp",
    "discrete_gaussian",
    "discrete_laplace",
    "distinguishing_audit",
    "gradient_audit",
    "plan_noise",
    "zcdp_of_approximate",
]
