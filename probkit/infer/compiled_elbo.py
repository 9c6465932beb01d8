"""Blocks of optimisation steps in native code: the compiled form of ``elbo.ElboProgram``.

Guide and model are run once with fake tensors while their operations are recorded, from the flat
vector of unconstrained parameters to the ELBO and its gradient; the recording becomes C++ with
Adam around it (:mod:`probkit.infer.native`). Fresh noise and fresh minibatches in every step come
from a generator inside, seeded by the loop's. What cannot be recorded raises ``Unsupported``:
sites without a reparametrised draw, enumeration, control flow that depends on values.
"""

from __future__ import annotations

import ctypes

import pyro
import torch
from torch import Tensor

from probkit.infer.flat_elbo import FlatElbo
from probkit.infer.native.build import pointer
from probkit.infer.native.program import NativeFunction
from probkit.infer.protocols import State

__all__ = ["CompiledElbo"]


class CompiledElbo:
    """Adam on the ELBO, many steps a call; must be built inside ``param_scope``.

    Args:
        flat: loss and gradient; the values of its data are fixed from here on.

    Attributes:
        native: loss and gradient in native code.

    Raises:
        Unsupported: the reason why it has to run eagerly.
    """

    def __init__(self, flat: FlatElbo) -> None:
        self._flat = flat
        with pyro.validation_enabled(False):
            self.native = NativeFunction(flat, flat.start, flat.data, driver="adam.cpp")

    def block(
        self,
        state: State,
        rates: Tensor,
        seed: int,
        *,
        clip_norm: float = 0.0,
        weight_decay: float = 0.0,
    ) -> tuple[State, Tensor, bool]:
        """Up to ``len(rates)`` steps from a state of ``elbo.ElboProgram``.

        Args:
            state: parameters and moments.
            rates: (K,) learning rate of each step, float64.
            seed: of noise and minibatches.
            clip_norm: largest Euclidean norm of the gradient, 0 for any.
            weight_decay: of AdamW.

        Returns:
            The new parameters and moments, and the parameters of the last loss (``evaluated``);
            the losses of the steps that were done, fewer than K
            where the next one is not finite; whether a matrix that must be positive definite was
            not, in that step.
        """
        theta, first, second = (
            self._flat.joined({name: state[f"{part}.{name}"] for name in self._flat.names})
            for part in ("param", "first", "second")
        )
        evaluated = theta.clone()
        losses = torch.empty(len(rates), dtype=torch.float64)
        failure = ctypes.c_int64(0)
        done = self.native.library.adam(
            ctypes.c_int64(len(rates)),
            ctypes.c_int64(int(state["num_steps"])),
            pointer(theta),
            pointer(first),
            pointer(second),
            pointer(evaluated),
            pointer(rates),
            ctypes.c_double(clip_norm),
            ctypes.c_double(weight_decay),
            ctypes.c_int64(self._flat.natural),
            self.native.inputs,
            ctypes.c_uint64(seed),
            self.native.workspace_pointer(),
            pointer(losses),
            ctypes.byref(failure),
        )
        new: State = {}
        parts = {"param": theta, "first": first, "second": second, "evaluated": evaluated}
        for part, values in parts.items():
            for name, piece in self._flat.parts(values).items():
                new[f"{part}.{name}"] = piece.clone()
        return new, losses[:done], bool(failure.value)
