"""How a fit ended: a status with its message and remedy."""

from __future__ import annotations

from enum import Enum

__all__ = ["Status"]


class Status(Enum):
    """Why a fit stopped, and what to do about it.

    Example:
        >>> Status.MAX_STEPS.ok, Status.MAX_STEPS.remedy[:20]
        (True, 'allow more steps, or')
    """

    CONVERGED = "converged"
    MAX_STEPS = "max_steps"
    OUT_OF_TIME = "out_of_time"
    STALLED = "stalled"
    NOT_MIXED = "not_mixed"
    NON_FINITE = "non_finite"
    NOT_PSD = "not_psd"
    INTERRUPTED = "interrupted"

    @property
    def message(self) -> str:
        """What happened, in one sentence."""
        return _TEXTS[self][0]

    @property
    def remedy(self) -> str:
        """What the user can do; empty if nothing is needed."""
        return _TEXTS[self][1]

    @property
    def ok(self) -> bool:
        """Whether the result is the outcome of an unbroken computation."""
        return self not in (Status.NON_FINITE, Status.NOT_PSD)


_TEXTS = {
    Status.CONVERGED: ("The objective settled, or the chains of a sampler agree.", ""),
    Status.MAX_STEPS: (
        "The allowed number of steps was used up before the objective settled.",
        "allow more steps, or resume the result",
    ),
    Status.OUT_OF_TIME: (
        "The allowed seconds were used up before the objective settled.",
        "allow more seconds, or resume the result with a larger budget",
    ),
    Status.STALLED: (
        "The objective has not improved for longer than the patience allows.",
        "try other starting values or a smaller step size; look at the history",
    ),
    Status.NOT_MIXED: (
        "All draws were made, but the chains do not agree (r_hat above 1.05, or unknown), or "
        "divergences or energies show that they missed a part of the posterior.",
        "draw more samples or warm up longer; look at diagnostics['r_hat'] for the sites "
        "concerned, and reparametrise where transitions diverge",
    ),
    Status.NON_FINITE: (
        "The objective became NaN or infinite; the last finite state was kept.",
        "check the data for extreme values, rescale them, or reduce the step size",
    ),
    Status.NOT_PSD: (
        "A matrix lost positive definiteness; the last good state was kept.",
        "merge near-duplicate points, use float64, or bound the lengthscales from below",
    ),
    Status.INTERRUPTED: (
        "The fit was interrupted; the state of the last completed step was kept.",
        "resume the result to go on from there",
    ),
}
