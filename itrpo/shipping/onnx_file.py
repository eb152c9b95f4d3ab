"""A policy as ONNX, which is a trace of `policy.step`: the acting rules and guards are written once, there.

Inputs: "observation" [batch, O] and, where the policy remembers something, "state" [batch, S], zeros where an episode
begins. Outputs: "action" [batch, A], with a state "next_state" for the next call, with guards "on_observation" and
"on_action", int32: `policy.BITS` of those that acted. What the file says of itself is JSON in its metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from itrpo.errors import InputError
from itrpo.policy import Policy, step

# Read by every onnxruntime from 1.18 (2024) to the current 1.32; the operators used here are no others in later ones.
OPSET, IR_VERSION = 21, 10
MISSING = "export to onnx needs the packages onnx and onnxruntime (pip install 'itrpo[onnx]')"


def import_onnx() -> tuple[Any, Any]:
    """onnx and onnxruntime. Raises InputError where they are missing."""
    # Imported without it, 1.32 leaves an id of the device in the home folder and a database of what it would send.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{MISSING}: {error}") from None
    return onnx, onnxruntime


def to_onnx(policy: Policy, about: Mapping[str, Any]) -> bytes:
    """The file's bytes. Raises InputError without the package."""
    onnx, _ = import_onnx()
    graph = Graph(onnx)
    raw = Traced(graph, "observation", (None, policy.frame), np.float32)
    state = Traced(graph, "state", (None, policy.memory), np.float32)
    done = step(policy, raw, state, Namespace(graph))
    outputs = {"action": done.action, "next_state": done.state if policy.memory else None}
    outputs |= {"on_observation": done.on_observation, "on_action": done.on_action}
    kept = {name: value for name, value in outputs.items() if value is not None}
    for name, value in kept.items():
        graph.add("Identity", value, shape=value.shape, dtype=value.dtype, name=name)
    make, kind = onnx.helper, onnx.helper.np_dtype_to_tensor_dtype
    inputs = [raw, state] if policy.memory else [raw]
    model = make.make_model(
        make.make_graph(
            graph.nodes,
            "policy",
            [make.make_tensor_value_info(it.name, kind(np.dtype(it.dtype)), ["batch", it.shape[1]]) for it in inputs],
            [
                make.make_tensor_value_info(name, kind(np.dtype(it.dtype)), ["batch", it.shape[1]])
                for name, it in kept.items()
            ],
            [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
        ),
        opset_imports=[make.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="itrpo",
        producer_version=str(about["itrpo"]),
    )
    make.set_model_props(model, {name: json.dumps(value) for name, value in about.items()})
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def runner(content: bytes, policy: Policy) -> Any:
    """(observations [R, O], states [R, S]) -> [action, next_state or None, on_observation or None, on_action or None],
    by onnxruntime.
    """
    _, onnxruntime = import_onnx()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    names = [it.name for it in session.get_outputs()]

    def run(observations: np.ndarray, states: np.ndarray) -> list[Any]:
        given = {"observation": observations} | ({"state": states} if policy.memory else {})
        found = dict(zip(names, session.run(names, given), strict=True))
        return [found.get(name) for name in ("action", "next_state", "on_observation", "on_action")]

    return run


# --- arrays that write down what is done with them ------------------------------------------------------------------


class Graph:
    """Nodes and constants of a model, in the order of their making."""

    def __init__(self, onnx: Any) -> None:
        self.helper = onnx.helper
        self.nodes: list[Any] = []
        self.constants: dict[str, np.ndarray] = {}

    def name_of(self, value: Any, like: Any) -> str:
        """Of a traced array; of any other, which becomes a constant of `like`'s type."""
        if isinstance(value, Traced):
            return value.name
        array = np.ascontiguousarray(value, like).reshape(np.shape(value))
        name = f"c{len(self.constants)}"
        self.constants[name] = array
        return name

    def add(self, op: str, *inputs: Any, shape: Any, dtype: Any, like: Any = None, name: str = "", **named: Any) -> Any:
        names = [self.name_of(it, like) for it in inputs]
        name = name or f"n{len(self.nodes)}"
        self.nodes.append(self.helper.make_node(op, names, [name], **named))
        return Traced(self, name, shape, dtype)


class Traced:
    """An array of a graph, with as much of NumPy as `policy.step` needs. Its first axis has any length, None."""

    __array_ufunc__ = None  # NumPy's arrays leave operations to the methods below

    def __init__(self, graph: Graph, name: str, shape: tuple[Any, ...], dtype: Any) -> None:
        self.graph, self.name, self.shape, self.dtype = graph, name, shape, dtype

    def _two(self, op: str, first: Any, second: Any, dtype: Any = None) -> Any:
        shape = broadcast(first, second)
        return self.graph.add(op, first, second, shape=shape, dtype=dtype or self.dtype, like=self.dtype)

    def __add__(self, other: Any) -> Any:
        return self._two("Add", self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Any:
        return self._two("Sub", self, other)

    def __mul__(self, other: Any) -> Any:
        return self._two("Mul", self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Any:
        return self._two("Div", self, other)

    def __lt__(self, other: Any) -> Any:
        return self._two("Less", self, other, bool)

    def __gt__(self, other: Any) -> Any:
        return self._two("Greater", self, other, bool)

    def __le__(self, other: Any) -> Any:
        return self._two("LessOrEqual", self, other, bool)

    def __and__(self, other: Any) -> Any:
        return self._two("And", self, other)

    __rand__ = __and__

    def __or__(self, other: Any) -> Any:
        return self._two("Or", self, other)

    def __invert__(self) -> Any:
        return self.graph.add("Not", self, shape=self.shape, dtype=bool)

    def __matmul__(self, weight: np.ndarray) -> Any:
        return self.graph.add("MatMul", self, weight, shape=(*self.shape[:-1], weight.shape[1]), dtype=self.dtype)

    def __getitem__(self, key: Any) -> Any:
        """Slices of step 1, numbers and None."""
        value, shape, axis = self, list[Any](), 0
        for it in key if isinstance(key, tuple) else (key,):
            if it is None:
                shape.append(1)
                continue
            size = value.shape[axis]
            start, stop = (it, it + 1) if isinstance(it, int) else (it.start or 0, it.stop)
            if isinstance(it, int) or (start, stop) != (0, None):
                ends = [[start], [2**31 if stop is None else stop], [axis]]
                sliced = len(range(*slice(start, stop).indices(size)))
                value = self.graph.add(
                    "Slice",
                    *(value, *ends),
                    shape=(*value.shape[:axis], sliced, *value.shape[axis + 1 :]),
                    dtype=self.dtype,
                    like=np.int64,
                )
            if not isinstance(it, int):
                shape.append(value.shape[axis])
            axis += 1
        shape += value.shape[axis:]
        return value if tuple(shape) == value.shape else value.reshape(*(-1 if it is None else it for it in shape))

    def reshape(self, *shape: int) -> Any:
        found = tuple(None if it == -1 else it for it in shape)
        return self.graph.add("Reshape", self, list(shape), shape=found, dtype=self.dtype, like=np.int64)

    def argmax(self, axis: int) -> Any:
        shape = (*self.shape[:axis], *self.shape[axis + 1 :])
        return self.graph.add("ArgMax", self, shape=shape, dtype=np.int64, axis=axis, keepdims=0)


class Namespace:
    """As much of the module numpy."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def _one(self, op: str, value: Traced, dtype: Any = None) -> Any:
        return self.graph.add(op, value, shape=value.shape, dtype=dtype or value.dtype)

    def tanh(self, value: Traced) -> Any:
        return self._one("Tanh", value)

    def exp(self, value: Traced) -> Any:
        return self._one("Exp", value)

    def abs(self, value: Traced) -> Any:
        return self._one("Abs", value)

    def sqrt(self, value: Traced) -> Any:
        return self._one("Sqrt", value)

    def max(self, value: Traced, axis: int, keepdims: bool) -> Any:
        shape = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
        return self.graph.add("ReduceMax", value, [axis], shape=shape, dtype=value.dtype, like=np.int64, keepdims=1)

    def isfinite(self, value: Traced) -> Any:
        return ~(self._one("IsNaN", value, bool) | self._one("IsInf", value, bool))

    def maximum(self, value: Traced, other: Any) -> Any:
        return self.graph.add("Max", value, other, shape=broadcast(value, other), dtype=value.dtype, like=value.dtype)

    def minimum(self, value: Traced, other: Any) -> Any:
        return self.graph.add("Min", value, other, shape=broadcast(value, other), dtype=value.dtype, like=value.dtype)

    def clip(self, value: Traced, low: Any, high: Any) -> Any:
        return self.minimum(self.maximum(value, low), high)

    def where(self, condition: Traced, first: Any, second: Any) -> Any:
        dtype = first.dtype
        shape = broadcast(condition, first, second)
        return self.graph.add("Where", condition_of(condition), first, second, shape=shape, dtype=dtype, like=None)

    def concatenate(self, parts: list[Any], axis: int) -> Any:
        first = parts[0]
        size = sum(it.shape[axis] for it in parts)
        shape = (*first.shape[:axis], size, *first.shape[axis + 1 :])
        return self.graph.add("Concat", *parts, shape=shape, dtype=first.dtype, axis=axis)

    def any(self, value: Traced, axis: int, keepdims: bool) -> Any:
        number = self.graph.helper.np_dtype_to_tensor_dtype(np.dtype(np.int32))
        counted = self.graph.add("Cast", value, shape=value.shape, dtype=np.int32, to=number)
        shape = (*value.shape[:axis], 1, *value.shape[axis + 1 :])
        most = self.graph.add("ReduceMax", counted, [axis], shape=shape, dtype=np.int32, like=np.int64, keepdims=1)
        return most > 0

    def take_along_axis(self, options: Traced, chosen: Traced, axis: int) -> Any:
        """Of [R, n, A] by [R, 1, 1]."""
        rows = chosen.reshape(-1, 1)
        shape = (None, options.shape[2])
        return self.graph.add("GatherND", options, rows, shape=shape, dtype=options.dtype, batch_dims=axis)


def condition_of(value: Any) -> Any:
    return value if isinstance(value, Traced) else np.asarray(value, bool)


def broadcast(*values: Any) -> tuple[Any, ...]:
    """The shape of what several become together; the axis of any length is the first of the longest, and stays."""
    shapes = [tuple(np.shape(it)) if not isinstance(it, Traced) else it.shape for it in values]
    rank = max(map(len, shapes))
    longest = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    return tuple(None if None in axis else max(axis) for axis in zip(*longest, strict=True))
