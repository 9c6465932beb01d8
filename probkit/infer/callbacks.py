"""Callbacks of the loop: progress display and the protocol for a user's own."""

from __future__ import annotations

import builtins
import sys
from typing import Any, Protocol

from probkit.infer.protocols import State, StepInfo
from probkit.infer.status import Status

__all__ = ["Callback", "Progress"]


class Callback(Protocol):
    """Called around the loop; an exception raised by a callback ends the fit and propagates."""

    def start(self, max_steps: int, step: int) -> None: ...

    def step(self, step: int, state: State, info: StepInfo) -> None: ...

    def finish(self, status: Status) -> None: ...


class Progress:
    """A tqdm bar with the objective, in terminals and notebooks; elsewhere a line every 10 seconds.

    Args:
        description: in front of the bar.
        exact: whether all steps will be taken. Where a fit may end long before its limit, a share
            of the limit and the time left to it would mislead, and are not shown.
    """

    def __init__(self, description: str = "fit", *, exact: bool = True) -> None:
        self.description, self.exact = description, exact
        self._bar: Any = None

    def start(self, max_steps: int, step: int) -> None:
        from tqdm.auto import tqdm

        watched = sys.stderr.isatty() or hasattr(builtins, "__IPYTHON__")
        self._bar = tqdm(
            total=max_steps if self.exact else None,
            initial=step,
            desc=self.description,
            leave=True,
            mininterval=0.1 if watched else 10.0,
        )

    def step(self, step: int, state: State, info: StepInfo) -> None:
        self._bar.update(max(len(info.objectives), 1))
        text = f"objective {info.objective:.6g}"
        self._bar.set_postfix_str(f"{info.message} {text}".strip(), refresh=False)

    def finish(self, status: Status) -> None:
        self._bar.set_postfix_str(f"{status.value}")
        self._bar.close()
