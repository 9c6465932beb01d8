"""The native form of ``(loss, gradient) = f(parameters, *data)``, for one point or for many."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from probkit.errors import ShapeError, message
from probkit.infer.native.build import library, resource
from probkit.infer.native.expressions import c_type
from probkit.infer.native.graph import Graph, trace
from probkit.infer.native.lowering import Lowering, Unsupported, count_of
from probkit.infer.native.values import Number, Value, View

__all__ = ["NativeFunction"]


class NativeFunction:
    """Loss and gradient as a C++ function inside a driver (an optimiser, a sampler).

    Args:
        function: ``function(parameters, *data)`` returns the loss and its gradient, flat; or the
            losses ``(batch,)`` of as many points, one after another in the parameters, and theirs.
        parameters: example of the flat parameter vector.
        data: tensors; their values are fixed from here on.
        driver: name of the C++ file that calls ``evaluate`` in its loop; empty for none.

    Raises:
        Unsupported: no native form, for the reason in the message.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        parameters: Tensor,
        data: Sequence[Tensor],
        driver: str = "",
    ) -> None:
        if parameters.device.type != "cpu":
            raise Unsupported(f"tensors on {parameters.device}")
        graph = trace(function, parameters, data)
        self.source, self.workspace_size = _write(graph, parameters, driver)
        self.size, self.dtype = parameters.numel(), parameters.dtype
        self._inputs = list(graph.inputs.values())
        self.library = library(self.source)
        self.workspace = torch.empty(self.workspace_size + 64, dtype=torch.uint8)
        addresses = [x.data_ptr() for x in self._inputs]
        self.inputs = (ctypes.c_void_p * max(len(addresses), 1))(*addresses)

    def __call__(self, parameters: Tensor, seed: int = 0) -> tuple[float, Tensor, bool]:
        """Loss and gradient at one point, and whether a factorisation failed.

        Args:
            parameters: (size,) as in the example given at first.
            seed: of the random draws in the graph.

        Raises:
            ShapeError: other parameters than the graph was recorded for.
        """
        if parameters.shape != (self.size,) or parameters.dtype != self.dtype:
            raise ShapeError(
                message(
                    "The native function was recorded for other parameters",
                    where="parameters",
                    got=f"{tuple(parameters.shape)}, {parameters.dtype}",
                    expected=f"({self.size},), {self.dtype}",
                )
            )
        values = parameters.detach().contiguous()
        gradient = torch.empty_like(values)
        loss = ctypes.c_double(0.0)
        failed = self.library.evaluate_once(
            ctypes.c_void_p(values.data_ptr()),
            self.inputs,
            ctypes.c_uint64(seed),
            self.workspace_pointer(),
            ctypes.byref(loss),
            ctypes.c_void_p(gradient.data_ptr()),
        )
        return loss.value, gradient, bool(failed)

    def workspace_pointer(self) -> ctypes.c_void_p:
        """Address of the workspace, aligned to a cache line."""
        address = self.workspace.data_ptr()
        return ctypes.c_void_p(-(-address // 64) * 64)


def _write(graph: Graph, parameters: Tensor, driver: str) -> tuple[str, int]:
    """The whole source, and the size of its workspace in bytes."""
    code = Lowering()
    real = c_type(parameters.dtype)
    if real is None:
        raise Unsupported(f"parameters of {parameters.dtype}")
    given: dict[str, Value] = {
        graph.parameters: View("theta", tuple(parameters.shape), parameters.dtype, (1,))
    }
    for k, (name, tensor) in enumerate(graph.inputs.items()):
        kind = c_type(tensor.dtype)
        if kind is None:
            raise Unsupported(f"tensors of {tensor.dtype}")
        pointer = f"x{k}"
        code.lines.append(f"const {kind}* const __restrict {pointer} = (const {kind}*)inputs[{k}];")
        given[name] = View(pointer, tuple(tensor.shape), tensor.dtype, tuple(tensor.stride()))
    loss, gradient = code.run(graph.graph, given)
    entry = gradient.name if isinstance(gradient, Number) else f"{code.dense(gradient).name}[i]"
    batch = count_of(loss.shape)
    value = code.number(loss) if batch == 1 else f"{code.dense(code.memory(loss)).name}[i]"
    body = "\n  ".join(code.lines)
    prepare = "\n  ".join(code.prepare)
    place = code.workspace
    size = parameters.numel()
    source = "\n".join(
        [
            resource("runtime.cpp"),
            f"typedef {real} REAL;",
            f"static const int64_t BATCH = {batch}, SIZE = {size // batch}, GRADIENT = {place};",
            f"static void prepare(byte* workspace) {{\n  {prepare}\n}}",
            "static int64_t evaluate(const REAL* __restrict theta, const void* const* inputs,",
            "    Random& random, byte* workspace, double* loss, REAL* __restrict gradient) {",
            f"  {body}",
            f"  for (int64_t i = 0; i < BATCH; ++i) loss[i] = {value};",
            f"  for (int64_t i = 0; i < BATCH * SIZE; ++i) gradient[i] = {entry};",
            "  return 0;\n}",
            resource("evaluate.cpp"),
            resource(driver) if driver else "",
        ]
    )
    return source, place + parameters.dtype.itemsize * size + 64
