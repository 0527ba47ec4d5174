"""Finding one's way in an exported graph; without torch, so that a build needs none."""

import onnx


def head_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The convolution whose output is `cam`."""
    found: onnx.NodeProto = next(node for node in model.graph.node if "cam" in node.output and node.op_type == "Conv")
    return found


def feeding(model: onnx.ModelProto, output: str) -> set[str]:
    """Names of the nodes that an output depends on."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found: set[str] = set()
    waiting = [output]
    while waiting:
        node = maker.get(waiting.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            waiting += node.input
    return found


def beside_the_network(model: onnx.ModelProto) -> list[str]:
    """Names of the nodes that stay in float: the head, the mean of its maps, and the distance from the training films.

    They cost little and decide much; squared distances overflow 16 bits.
    """
    head = head_node(model)
    after_head = feeding(model, "logits") - feeding(model, "cam")
    gate = feeding(model, "atypicality") - feeding(model, "cam")
    return sorted({head.name} | after_head | gate)
