"""Graphs of loss and gradient: traced, functional, and reduced to what changes from call to call.

``make_fx`` records the ATen operations of a function of one flat parameter vector, gradient
included, with fake tensors: whatever depends on a value (``.item()``, ``if tensor:``) cannot be
recorded and raises. What follows from the data alone is computed once and handed to the native
code as further inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from probkit.infer.native.lowering import Unsupported

__all__ = ["Graph", "trace"]

_RANDOM = torch.Tag.nondeterministic_seeded
_LIKE: tuple[str, ...] = (
    "full_like",
    "zeros_like",
    "ones_like",
    "empty_like",
    "new_zeros",
    "new_ones",
)
_LIKE += ("new_full", "new_empty", "new_empty_strided", "empty_strided")


@dataclass
class Graph:
    """A graph of one parameter vector.

    Args:
        graph: nodes that depend on the parameters or are random.
        parameters: name of the parameters' placeholder.
        inputs: by node name, the tensors that stay the same.
    """

    graph: fx.Graph
    parameters: str
    inputs: dict[str, Tensor]


def trace(function: Callable[..., Any], parameters: Tensor, data: Sequence[Tensor]) -> Graph:
    """The graph of ``function(parameters, *data)``.

    Raises:
        Unsupported: the function cannot be recorded, for the reason in the message.
    """
    # imported here: the tracer's symbolic algebra takes half a second to load
    from torch._decomp import core_aten_decompositions, get_decompositions
    from torch.fx.experimental.proxy_tensor import make_fx

    functional = torch.func.functionalize(function, remove="mutations")
    aten = torch.ops.aten
    further = [aten._softmax, aten._log_softmax, aten.embedding, aten.addmm]
    table: Any = {
        **core_aten_decompositions(),
        **get_decompositions(further),
        aten.var.correction: _variance,
    }
    try:
        module = make_fx(
            functional,
            tracing_mode="fake",
            decomposition_table=table,
            _allow_non_fake_inputs=True,
        )(parameters, *data)
    except (RuntimeError, NotImplementedError, ValueError) as error:
        if type(error).__name__ == "GuardOnDataDependentSymNode":
            text = "control flow or shapes depend on the value of a tensor"
            raise Unsupported(text) from error
        first = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first}"
        raise Unsupported(f"the model cannot be recorded ({reason})") from error
    graph = module.graph
    graph.eliminate_dead_code()
    _simplify(graph)
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    known = dict(zip([n.name for n in placeholders[1:]], data, strict=True))
    for node in graph.nodes:
        if node.op == "get_attr":
            known[node.name] = getattr(module, str(node.target))
    used = _fold(graph, known)
    return Graph(graph, placeholders[0].name, used)


def _variance(
    x: Tensor, dim: Any = None, *, correction: float | None = None, keepdim: bool = False
) -> Tensor:
    dims = list(range(x.dim())) if dim is None else dim
    mean = x.mean(dims, keepdim=True)
    count = x.numel() / max(mean.numel(), 1) - (1.0 if correction is None else correction)
    return (x - mean).square().sum(dims, keepdim=keepdim) / count


def _fold(graph: fx.Graph, known: dict[str, Tensor]) -> dict[str, Tensor]:
    """Compute all nodes that do not depend on parameters or chance; returns those still read."""
    values: dict[str, Any] = dict(known)
    changing = []
    for node in graph.nodes:
        if node.op == "output":
            changing.append(node)
        if node.op != "call_function":
            continue
        random = _RANDOM in getattr(node.target, "tags", ())
        like = _name(node) in _LIKE
        if random or (not like and any(n.name not in values for n in node.all_input_nodes)):
            changing.append(node)
            continue
        with torch.no_grad():
            values[node.name] = _evaluate(node, values)
        node.meta["static"] = True
    read = {n.name for node in changing for n in node.all_input_nodes}
    return {name: value for name, value in values.items() if name in read}


def _evaluate(node: Any, values: dict[str, Any]) -> Any:
    def look_up(argument: Any) -> Any:
        if isinstance(argument, fx.Node) and argument.name not in values:
            # only the shape of such an argument is read
            fake = argument.meta["val"]
            return torch.empty(fake.shape, dtype=fake.dtype)
        return values[argument.name] if isinstance(argument, fx.Node) else argument

    args = torch.utils._pytree.tree_map(look_up, node.args)
    kwargs = torch.utils._pytree.tree_map(look_up, dict(node.kwargs))
    return node.target(*args, **kwargs)


def _simplify(graph: fx.Graph) -> None:
    """Drop operations without effect, and repeat none."""
    seen: dict[Any, Any] = {}
    for node in list(graph.nodes):
        if node.op != "call_function":
            continue
        source = _identity(node)
        if source is None and _RANDOM not in getattr(node.target, "tags", ()):
            key = _key(node)
            source = seen.setdefault(key, node)
            source = None if source is node else source
        if source is not None:
            node.replace_all_uses_with(source)
            graph.erase_node(node)
    graph.eliminate_dead_code()


def _identity(node: Any) -> Any:
    """The argument that a node returns unchanged, if it does."""
    name, args = _name(node), node.args
    source = args[0] if args else None
    if not isinstance(source, fx.Node) or "val" not in node.meta:
        return None
    one, other = node.meta["val"], source.meta.get("val")
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return None
    if one.shape != other.shape or one.dtype != other.dtype:
        return None
    if name in ("clone", "alias", "lift_fresh_copy", "_to_copy", "detach", "expand", "view"):
        return source
    number = args[1] if len(args) > 1 else None
    neutral = {"mul": 1, "div": 1, "pow": 1, "add": 0, "sub": 0}
    if name in neutral and isinstance(number, int | float) and number == neutral[name]:
        return source
    return None


def _key(node: Any) -> Any:
    def freeze(argument: Any) -> Any:
        if isinstance(argument, list | tuple):
            return tuple(freeze(a) for a in argument)
        if isinstance(argument, dict):
            return tuple(sorted((k, freeze(v)) for k, v in argument.items()))
        if isinstance(argument, float) and (math.isnan(argument) or argument == 0):
            return str(argument)
        return (type(argument).__name__, argument)

    return node.target, freeze(node.args), freeze(dict(node.kwargs))


def _name(node: Any) -> str:
    name: str = getattr(node.target, "__name__", str(node.target))
    return name.split(".")[0]
