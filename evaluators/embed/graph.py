"""all-MiniLM-L6-v2 as an ONNX graph with int8 weights, from its fp32 weights and without torch.

BERT (Devlin et al. 2019) with 6 layers, then the mean over the tokens, then unit length. Quantisation:

- Weights: symmetric, a scale per output channel, in [-64, 64]. CPUs without VNNI add two products of u8 x s8 in a
  saturating 16-bit register; 255 * 64 * 2 fits into it, so that every CPU computes the same integers.
- Activations: 8 bits, a scale per token, found as the graph runs. A scale for the whole batch, as in ONNX Runtime's
  DynamicQuantizeMatMul, would make a vector depend on its neighbours, which looks like drift.

Only exact or correctly rounded operations are used on the weights, and nothing of time or versions is written: the same
weights give the same bytes on every machine. Fused operators are those of ONNX Runtime (domain com.microsoft).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Array = NDArray[Any]
Weights = Mapping[str, NDArray[np.float32]]

LAYERS, HEADS, WIDTH, WINDOW = 6, 12, 384, 256
WEIGHT_RANGE, ACTIVATION_RANGE, ZERO = 64, 127, 128
EPSILON = 1e-12
RUNTIME = "com.microsoft"


def model(weights: Weights) -> bytes:
    """The serialised model: inputs `ids` (int64) and `mask` (int32) of shape (texts, tokens), output `vectors`."""
    graph = _Graph()
    tokens = _embeddings(graph, weights)
    for layer in range(LAYERS):
        tokens = _layer(graph, weights, f"encoder.layer.{layer}", tokens)
    _pool(graph, tokens)
    return graph.serialised()


class _Graph:
    """Nodes and constants in the order of their making. Each node and its output have one name, given by its place."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._named: dict[str, str] = {}

    def constant(self, value: Array) -> str:
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def shared(self, name: str, value: Array) -> str:
        """A constant that many nodes use."""
        if name not in self._named:
            self._named[name] = self.constant(value)
        return self._named[name]

    def axes(self, *values: int) -> str:
        return self.shared(f"int64 {values}", np.array(values, np.int64))

    def node(self, operator: str, *inputs: str, domain: str = "", **attributes: Any) -> str:
        return self.nodes(operator, inputs, 1, domain, **attributes)[0]

    def nodes(
        self, operator: str, inputs: Sequence[str], outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        names = [f"n{len(self._nodes)}.{index}" for index in range(outputs)]
        self._nodes.append(helper.make_node(operator, list(inputs), names, domain=domain, **attributes))
        return names

    def name(self, value: str, name: str) -> None:
        """Give the output of a node a name that callers use."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))

    def serialised(self) -> bytes:
        shape = ["texts", "tokens"]
        graph = helper.make_graph(
            self._nodes,
            "all-MiniLM-L6-v2 int8",
            [
                helper.make_tensor_value_info("ids", TensorProto.INT64, shape),
                helper.make_tensor_value_info("mask", TensorProto.INT32, shape),
            ],
            [helper.make_tensor_value_info("vectors", TensorProto.FLOAT, ["texts", WIDTH])],
            self._constants,
        )
        operators = [helper.make_opsetid("", 18), helper.make_opsetid(RUNTIME, 1)]
        made = helper.make_model(graph, opset_imports=operators, ir_version=9, producer_name="palegreen")
        return bytes(made.SerializeToString(deterministic=True))


def _embeddings(graph: _Graph, weights: Weights) -> str:
    """Words (int8, a scale per row) and positions, normalised: shape (texts * tokens, WIDTH)."""
    rows, scales = _quantised(weights["embeddings.word_embeddings.weight"], ACTIVATION_RANGE)
    words = graph.node("Gather", graph.constant(rows), "ids")
    words = graph.node("Cast", words, to=TensorProto.FLOAT)
    words = graph.node("Mul", words, graph.node("Gather", graph.constant(scales), "ids"))
    kinds = weights["embeddings.token_type_embeddings.weight"]
    positions = graph.constant(weights["embeddings.position_embeddings.weight"][:WINDOW] + kinds[0])
    length = graph.node("Shape", "ids", start=1, end=2)
    positions = graph.node("Slice", positions, graph.axes(0), length, graph.axes(0))
    normed = _norm(graph, weights, "embeddings", graph.node("Add", words, positions))
    return graph.node("Reshape", normed, graph.axes(-1, WIDTH))


def _layer(graph: _Graph, weights: Weights, path: str, tokens: str) -> str:
    """Attention and feed-forward, each with its residual and norm."""
    heads = [f"{path}.attention.self.{part}" for part in ("query", "key", "value")]
    mixed = _linear(graph, tokens, np.concatenate([weights[f"{head}.weight"] for head in heads]))
    parts = graph.nodes("Split", [mixed, graph.axes(WIDTH, WIDTH, WIDTH)], 3, axis=1)
    attended = graph.node(
        "MultiHeadAttention",
        *(_by_text(graph, part) for part in parts),
        graph.constant(np.concatenate([weights[f"{head}.bias"] for head in heads])),
        "mask",
        domain=RUNTIME,
        num_heads=HEADS,
    )
    attended = graph.node("Reshape", attended, graph.axes(-1, WIDTH))
    tokens = _residual(graph, weights, f"{path}.attention.output", attended, tokens)
    inner = _linear(graph, tokens, weights[f"{path}.intermediate.dense.weight"])
    bias = graph.constant(weights[f"{path}.intermediate.dense.bias"])
    # The tanh form: as near to fp32 as erf once the weights are int8, in two thirds of the time.
    inner = graph.node("FastGelu", inner, bias, domain=RUNTIME)
    return _residual(graph, weights, f"{path}.output", inner, tokens)


def _pool(graph: _Graph, tokens: str) -> None:
    """Mean over the tokens that the mask holds, as a sum: the length is made 1 anyway."""
    mask = graph.node("Unsqueeze", graph.node("Cast", "mask", to=TensorProto.FLOAT), graph.axes(1))
    total = graph.node("Squeeze", graph.node("MatMul", mask, _by_text(graph, tokens)), graph.axes(1))
    graph.name(graph.node("LpNormalization", total, axis=-1, p=2), "vectors")


def _residual(graph: _Graph, weights: Weights, path: str, inner: str, tokens: str) -> str:
    # Apart, as ONNX Runtime's SkipLayerNormalization takes four times as long on CPU.
    outer = graph.node("Add", _linear(graph, inner, weights[f"{path}.dense.weight"]), tokens)
    outer = graph.node("Add", outer, graph.constant(weights[f"{path}.dense.bias"]))
    return _norm(graph, weights, path, outer)


def _norm(graph: _Graph, weights: Weights, path: str, tokens: str) -> str:
    scale = graph.constant(weights[f"{path}.LayerNorm.weight"])
    bias = graph.constant(weights[f"{path}.LayerNorm.bias"])
    return graph.node("LayerNormalization", tokens, scale, bias, axis=-1, epsilon=EPSILON)


def _linear(graph: _Graph, tokens: str, weight: NDArray[np.float32]) -> str:
    """Product with a weight of shape (outputs, inputs), without its bias."""
    largest = graph.node("ReduceMax", graph.node("Abs", tokens), graph.axes(-1), keepdims=1)
    scale = graph.node("Mul", largest, graph.shared("step", np.array(1 / ACTIVATION_RANGE, np.float32)))
    zero = graph.shared("zero", np.array(ZERO, np.uint8))
    flat = graph.node("Reshape", scale, graph.axes(-1))
    zeros = graph.node("Expand", zero, graph.node("Shape", flat))
    activations = graph.node("QuantizeLinear", tokens, flat, zeros, axis=0)
    rows, scales = _quantised(weight, WEIGHT_RANGE)
    one = graph.shared("one", np.array(1, np.float32))
    product = graph.node(
        "MatMulIntegerToFloat",
        activations,
        graph.constant(rows.T),
        one,
        graph.constant(scales[:, 0]),
        zero,
        domain=RUNTIME,
    )
    return graph.node("Mul", product, scale)


def _by_text(graph: _Graph, tokens: str) -> str:
    """From (texts * tokens, WIDTH) to (texts, tokens, WIDTH)."""
    shape = graph.node("Concat", graph.node("Shape", "ids"), graph.axes(WIDTH), axis=0)
    return graph.node("Reshape", tokens, shape)


def _quantised(weight: NDArray[np.float32], most: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Whole numbers in [-most, most] by row, and the scale of each row, shape (rows, 1)."""
    scales = np.abs(weight).max(axis=1, keepdims=True) / np.float32(most)
    return np.rint(weight / scales).astype(np.int8), scales
