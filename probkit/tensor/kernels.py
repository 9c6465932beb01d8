"""Kernels of the modes: names or kernel objects to component-batched kernels.

Coordinates are mapped to [0, 1] before kernels see them, so named kernels are built for a range of
one and a kernel object given by the user is understood in internal units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probkit.errors import ConfigurationError, DtypeError, message
from probkit.kernels import KERNEL_NAMES, MarkovKernel, kernel_from_name

__all__ = ["NamedKernels", "resolve_kernels"]

DEFAULT_KERNEL = "matern12"


def resolve_kernels(
    kernels: str | MarkovKernel | Sequence[str | MarkovKernel] | None, num_modes: int
) -> list[str | MarkovKernel]:
    """One kernel a mode; a single one serves all modes, None means ``matern12``.

    Raises:
        ConfigurationError: an unknown name or a wrong number of kernels.
        DtypeError: something that is neither a name nor a Markov kernel.
    """
    if kernels is None:
        kernels = DEFAULT_KERNEL
    chosen = [kernels] * num_modes if isinstance(kernels, str | MarkovKernel) else list(kernels)
    if len(chosen) != num_modes:
        raise ConfigurationError(
            message(
                "There must be one kernel for each mode",
                where="kernels",
                got=f"{len(chosen)} kernels",
                expected=f"{num_modes}",
            )
        )
    for kernel in chosen:
        if isinstance(kernel, str):
            if kernel not in KERNEL_NAMES:
                raise ConfigurationError(
                    message(
                        "There is no kernel of this name",
                        where="kernels",
                        got=repr(kernel),
                        expected="one of " + ", ".join(KERNEL_NAMES),
                    )
                )
        elif not isinstance(kernel, MarkovKernel):
            raise DtypeError(
                message(
                    "A mode's kernel must be a Markov kernel",
                    where="kernels",
                    got=type(kernel).__name__,
                    expected="a name or a probkit.kernels.MarkovKernel",
                )
            )
    return chosen


@dataclass(frozen=True)
class NamedKernels:
    """Kernel factory of a model: (mode, number of components) -> kernel with that batch shape."""

    kernels: tuple[str | MarkovKernel, ...]

    def __call__(self, mode: int, num_components: int) -> MarkovKernel:
        kernel = self.kernels[mode]
        if isinstance(kernel, str):
            return kernel_from_name(kernel, num_components=num_components)
        return kernel.expand_batch([num_components])
