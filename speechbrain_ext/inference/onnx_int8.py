"""Products of an ONNX graph in eight bits, quantised as onnxruntime runs them fast.

onnxruntime's own quantisation leaves a convolution a convolution, whose weights must
be unsigned: of these it has no product that uses the instructions of VNNI. Products
of unsigned inputs by signed weights are three times as fast there. So convolutions
become products here, of windows that are cut out after quantisation, channels last.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

# Seven bits: without VNNI a processor adds two products of an unsigned and a signed
# byte in 16 bits, which would saturate with eight.
LARGEST = 63
END = 2**62  # of an axis, whatever its length


def quantize_products(model, spared):
    """Turns convolutions and products with constant weights into ones of 8 bits.

    Inputs are quantised when the model runs, each tensor with its own scale, weights
    now, each output channel with its own. What is between the products is written so
    that onnxruntime can leave channels last from one to the next: batch norms
    and zeros in the padding become plain products and sums.

    Arguments
    ---------
    model : onnx.ModelProto
        In float32; it is changed.
    spared : list of str
        Names of nodes to leave as they are.

    Returns
    -------
    onnx.ModelProto
        The same model.
    """
    _Rewriting(model.graph, set(spared)).run()
    return model


class _Rewriting:
    """The nodes of a graph, one after the other."""

    def __init__(self, graph, spared):
        self.graph = graph
        self.spared = spared
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        values = [*graph.input, *graph.value_info, *graph.output]
        self.n_dims = {
            value.name: len(value.type.tensor_type.shape.dim)
            for value in values
            if value.type.tensor_type.HasField("shape")
        }
        self.nodes = []
        self.made = set()

    def run(self):
        rewriters = {
            "Conv": self.convolution,
            "MatMul": self.product,
            "Gemm": self.product_and_sum,
            "BatchNormalization": self.batch_norm,
            "Where": self.masking,
        }
        for node in self.graph.node:
            rewrite = rewriters.get(node.op_type)
            if rewrite is None or node.name in self.spared or not rewrite(node):
                self.nodes.append(node)
        used = {name for node in self.nodes for name in node.input}
        kept = [t for t in self.graph.initializer if t.name in used]
        del self.graph.node[:], self.graph.initializer[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(kept)

    def add(self, operation, inputs, output, **attributes):
        """Adds a node with one output, once, and gives the output's name."""
        if output not in self.made:
            self.made.add(output)
            self.nodes.append(
                helper.make_node(
                    operation, inputs, [output], name=f"node_{output}", **attributes
                )
            )
        return output

    def constant(self, name, value):
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def value(self, name):
        """A constant as an array, or None."""
        tensor = self.weights.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def quantized(self, x):
        """Names of a tensor in 8 bits, its scale and its zero."""
        names = [f"{x}_{part}" for part in ("uint8", "scale", "zero")]
        if names[0] not in self.made:
            self.made.add(names[0])
            self.nodes.append(
                helper.make_node(
                    "DynamicQuantizeLinear", [x], names, name=f"node_{names[0]}"
                )
            )
        return names

    def scaled_product(self, x, scale, zero, weight, name, output):
        """Adds the product of quantised inputs by a matrix (input, output channel)."""
        steps = np.maximum(np.abs(weight).max(axis=0), np.finfo("float32").tiny)
        steps = (steps / LARGEST).astype("float32")
        quantized = np.round(weight / steps).astype("int8")
        self.add(
            "MatMulInteger",
            [x, self.constant(f"{name}_weight", quantized), zero],
            f"{name}_int32",
        )
        self.add("Cast", [f"{name}_int32"], f"{name}_float", to=TensorProto.FLOAT)
        self.add("Mul", [scale, self.constant(f"{name}_steps", steps)], f"{name}_scale")
        return self.add("Mul", [f"{name}_float", f"{name}_scale"], output)

    def product(self, node):
        weight = self.value(node.input[1])
        if weight is None or weight.ndim != 2:
            return False
        name, output = f"{node.output[0]}_product", node.output[0]
        self.scaled_product(*self.quantized(node.input[0]), weight, name, output)
        return True

    def product_and_sum(self, node):
        settings = _attributes(node)
        weight = self.value(node.input[1])
        plain = settings.get("alpha", 1) == settings.get("beta", 1) == 1
        if weight is None or settings.get("transA") or not plain:
            return False
        weight = weight.T if settings.get("transB") else weight
        name, output = f"{node.output[0]}_product", node.output[0]
        total = f"{name}_unbiased" if len(node.input) > 2 else output
        self.scaled_product(*self.quantized(node.input[0]), weight, name, total)
        if total != output:
            self.add("Add", [total, node.input[2]], output)
        return True

    def convolution(self, node):
        settings = _attributes(node)
        weight = self.value(node.input[1])
        if weight is None or settings.get("group", 1) != 1:
            return False
        sizes = weight.shape[2:]
        n_axes = len(sizes)
        axes = np.arange(1, n_axes + 1)
        pads = settings.get("pads", [0] * 2 * n_axes)
        strides = settings.get("strides", [1] * n_axes)
        dilations = settings.get("dilations", [1] * n_axes)
        name, output = f"{node.output[0]}_product", node.output[0]
        to_last, to_first = (0, *(axes + 1), 1), (0, n_axes + 1, *axes)
        last = self.add(
            "Transpose", [node.input[0]], f"{node.input[0]}_last", perm=to_last
        )
        x, scale, zero = self.quantized(last)
        if any(pads):
            pads = np.array([0, *pads[:n_axes], 0, 0, *pads[n_axes:], 0], "int64")
            x = self.add(
                "Pad", [x, self.constant(f"{name}_pads", pads), zero], f"{name}_padded"
            )
        windows = []
        for place in np.ndindex(*sizes):
            if max(*sizes, *strides) == 1:
                windows.append(x)
                continue
            part = f"{name}_{len(windows)}"
            starts, ends = (np.empty(n_axes, "int64") for _ in range(2))
            for axis, (offset, size, step) in enumerate(zip(place, sizes, dilations)):
                starts[axis] = offset * step
                ends[axis] = -(size - 1 - offset) * step or END
            limits = {
                "starts": starts,
                "ends": ends,
                "axes": axes,
                "steps": np.array(strides, "int64"),
            }
            names = [self.constant(f"{part}_{k}", v) for k, v in limits.items()]
            windows.append(self.add("Slice", [x, *names], part))
        if len(windows) > 1:
            x = self.add("Concat", windows, f"{name}_windows", axis=-1)
        else:
            (x,) = windows
        matrix = np.moveaxis(weight, (0, 1), (-1, -2)).reshape(-1, weight.shape[0])
        y = self.scaled_product(x, scale, zero, matrix, name, f"{name}_unbiased")
        if len(node.input) > 2 and node.input[2]:
            y = self.add("Add", [y, node.input[2]], f"{name}_biased")
        self.add("Transpose", [y], output, perm=to_first)
        return True

    def batch_norm(self, node):
        x, *names = node.input
        numbers = [self.value(name) for name in names]
        if x not in self.n_dims or any(number is None for number in numbers):
            return False
        gain, bias, mean, variance = (number.astype("float64") for number in numbers)
        gain = gain / np.sqrt(variance + _attributes(node).get("epsilon", 1e-5))
        shape = (-1, *[1] * (self.n_dims[x] - 2))
        name = node.output[0]
        gain_and_bias = [
            self.constant(f"{name}_{kind}", value.reshape(shape).astype("float32"))
            for kind, value in (("gain", gain), ("bias", bias - mean * gain))
        ]
        scaled = self.add("Mul", [x, gain_and_bias[0]], f"{name}_scaled")
        self.add("Add", [scaled, gain_and_bias[1]], name)
        return True

    def masking(self, node):
        """Zeros where a condition holds, of which onnxruntime moves no transpose."""
        condition, zero, x = node.input
        zero = self.value(zero)
        if zero is None or zero.dtype != np.float32 or zero.shape or zero != 0:
            return False
        kept = self.add("Not", [condition], f"{condition}_kept")
        kept = self.add("Cast", [kept], f"{kept}_float", to=TensorProto.FLOAT)
        self.add("Mul", [x, kept], node.output[0])
        return True


def _attributes(node):
    return {a.name: helper.get_attribute_value(a) for a in node.attribute}
