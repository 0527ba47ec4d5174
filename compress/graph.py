"""Finding one's way in an exported graph; without torch, so that a build needs none."""

import onnx


def head_node(model: onnx.ModelProto) -> onnx.NodeProto:
    """The convolution that makes the maps of `cam`: the last one before it."""
    before = feeding(model, "cam")
    found: onnx.NodeProto = [node for node in model.graph.node if node.name in before and node.op_type == "Conv"][-1]
    return found


def offset_weight(model: onnx.ModelProto) -> str | None:
    """The weights [hidden, L] of the product that makes the offsets of the logits from metadata; None where there are none.

    The maps need no product, so the last one before the logits is it.
    """
    if not any(given.name == "metadata" for given in model.graph.input):
        return None
    beside = feeding(model, "logits") - feeding(model, "cam")
    last = [node for node in model.graph.node if node.name in beside and node.op_type == "MatMul"][-1]
    return str(last.input[1])


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
    network = feeding(model, head.input[0])
    return sorted((feeding(model, "logits") | feeding(model, "cam") | feeding(model, "atypicality")) - network)
