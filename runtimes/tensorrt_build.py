"""Building TensorRT engines, and checking ahead of time that one could be built: no GPU is needed for the check.

Networks are strongly typed: every type is what the graph says (QDQ, FP16, FP32), as TensorRT 11 has it anyway.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from cxredge.runtimes.session import EngineError

# Films a call may bring; more are run in parts of this size.
MAX_BATCH = 8
LIBRARIES = ("tensorrt", "tensorrt_rtx")


@dataclass(frozen=True)
class GraphCheck:
    """What can be known of a graph on TensorRT without the device.

    library: name and version that checked it. legal: its parser takes every node. refused: why not, a line a node.
    operators: how many of each kind the graph has; covered: share of its nodes that TensorRT runs, 0 to 1.
    convolutions: how many run in which type ("int8", "fp16", "fp32"). built: compute capability asked for -> the nearest
    that an engine was built for. failed: capability asked for -> why none could be. warnings: of the library, and ours on
    precision.
    """

    library: str
    legal: bool
    refused: tuple[str, ...]
    operators: dict[str, int]
    covered: float
    convolutions: dict[str, int]
    warnings: tuple[str, ...]
    built: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


class Logger:
    """What the library said, the last lines of it; made into a trt.ILogger by `logger_of`."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def last(self) -> str:
        """The last problem, or that there was none."""
        return self.problems[-1] if self.problems else "it said nothing"


def check_graph(onnx_path: Path, capabilities: Sequence[str] = (), library: str | None = None) -> GraphCheck | None:
    """Parse a graph and build an engine for each compute capability such as "8.7", or for the nearest known one.

    A graph that can be built for none of those asked for is not legal. library: "tensorrt" or "tensorrt_rtx"; the first that
    is installed unless told. None where none is.
    """
    found = library or next((name for name in LIBRARIES if _installed(name)), None)
    if found is None or not _installed(found):
        return None
    trt, log = import_module(found), logger_of(found)
    log.problems.clear()
    graph = onnx_path.read_bytes()
    builder, network, parser, legal = _parse(found, graph)
    refused = tuple(dict.fromkeys(_sentence(parser.get_error(i)) for i in range(parser.num_errors)))
    covered = 1.0 if legal else _covered(found, graph)
    warnings = [line for line in dict.fromkeys(log.problems) if legal and not line.startswith("ERROR")]
    convolutions = _convolutions(trt, network) if legal else {}
    if convolutions.get("fp32") and len(convolutions) > 1:
        warnings.append(f"{convolutions['fp32']} of {sum(convolutions.values())} convolutions stay in FP32")
    built, failed = dict[str, str](), dict[str, str]()
    for wanted in capabilities if legal else ():
        if (nearest := _nearest(trt, wanted)) is None:
            warnings.append(f"{found} builds for the GPU at hand only, so nothing was built for {wanted}")
        elif _build(trt, builder, network, capability=nearest) is not None:
            built[wanted] = nearest
        else:
            failed[wanted] = log.last()
    if failed and not built:
        legal, refused = False, (f"the builder failed: {log.last()}",)
    return GraphCheck(
        library=f"{found} {trt.__version__}",
        legal=legal,
        refused=refused,
        operators=dict(Counter(network.get_layer(i).type.name.lower() for i in range(network.num_layers)))
        if legal
        else {},
        covered=covered,
        convolutions=convolutions,
        warnings=tuple(warnings),
        built=built,
        failed=failed,
    )


def build_engine(
    library: str, graph: bytes, *, timing_cache: bytes | None, say: Callable[[str], None] = lambda _line: None
) -> tuple[bytes, bytes]:
    """The engine for the GPU at hand, serialized, and what was learned of its kernels' speed for the next build, if anything.

    Raises EngineError with the parser's or the builder's reason.
    """
    trt, log = import_module(library), logger_of(library)
    log.problems.clear()
    builder, network, parser, legal = _parse(library, graph)
    if not legal:
        raise EngineError(
            f"{library} refuses the graph: {_sentence(parser.get_error(0)) if parser.num_errors else log.last()};"
            " build the model for this device: cxredge build --target jetson"
        )
    config = builder.create_builder_config()
    # TensorRT for RTX times nothing while it builds.
    timings = None
    if library == "tensorrt":
        timings = config.create_timing_cache(timing_cache or b"") or config.create_timing_cache(b"")
        config.set_timing_cache(timings, False)
    config.progress_monitor = monitor = _monitor(trt, say)
    plan = _build(trt, builder, network, config=config)
    del monitor
    if plan is None:
        raise EngineError(f"{library} cannot build the engine: {log.last()}")
    learned = config.get_timing_cache() if timings is not None else None
    return bytes(plan), bytes(learned.serialize()) if learned is not None else b""


@cache
def logger_of(library: str) -> Any:
    """The one logger of this process: the library keeps the first it is given, whatever comes later."""
    trt = import_module(library)

    class Kept(trt.ILogger, Logger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            Logger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                self.problems.append(f"{severity.name}: {message.strip().splitlines()[0]}")
                del self.problems[:-50]

    return Kept()


def _installed(library: str) -> bool:
    try:
        import_module(library)
    except (ImportError, OSError):
        return False
    return True


def _parse(library: str, graph: bytes) -> tuple[Any, Any, Any, bool]:
    """Builder, network, parser, and whether every node was taken. The parser must live as long as the network."""
    trt, log = import_module(library), logger_of(library)
    builder = trt.Builder(log)
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if typed is None else 1 << int(typed))
    parser = trt.OnnxParser(network, log)
    return builder, network, parser, bool(parser.parse(graph))


def _build(trt: Any, builder: Any, network: Any, *, config: Any = None, capability: str | None = None) -> Any:
    """A serialized engine for 1 to MAX_BATCH films, fastest for one; None where the builder failed."""
    config = config or builder.create_builder_config()
    if capability is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capabilities(trt)[capability], 0)
    films = builder.create_optimization_profile()
    image = network.get_input(0)
    rest = tuple(image.shape)[1:]
    films.set_shape(image.name, (1, *rest), (1, *rest), (MAX_BATCH, *rest))
    config.add_optimization_profile(films)
    return builder.build_serialized_network(network, config)


def _capabilities(trt: Any) -> dict[str, Any]:
    """Compute capabilities that the library builds for without the GPU; TensorRT itself knows none."""
    known = getattr(trt, "ComputeCapability", None)
    names = [name for name in dir(known) if name.startswith("SM") and name[2:].isdigit()] if known is not None else []
    return {f"{name[2:-1]}.{name[-1]}": getattr(known, name) for name in names}


def _nearest(trt: Any, wanted: str) -> str | None:
    """The capability asked for, else the next lower of the same generation, whose instructions the GPU has too."""
    known = _capabilities(trt)
    lower = [name for name in known if name.split(".")[0] == wanted.split(".")[0] and name <= wanted]
    return max(lower, default=None)


def _covered(library: str, graph: bytes) -> float:
    trt, log = import_module(library), logger_of(library)
    builder = trt.Builder(log)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, log)
    parser.supports_model_v2(graph)
    parts = [(parser.is_subgraph_supported(i), len(parser.get_subgraph_nodes(i))) for i in range(parser.num_subgraphs)]
    nodes = sum(count for _, count in parts)
    return sum(count for taken, count in parts if taken) / nodes if nodes else 0.0


def _convolutions(trt: Any, network: Any) -> dict[str, int]:
    """Convolutions by the type they run in: 8 bits where both film and weights come out of a DequantizeLinear."""
    made_by = {}
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        for j in range(layer.num_outputs):
            made_by[layer.get_output(j).name] = layer.type
    counts: Counter[str] = Counter()
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type != trt.LayerType.CONVOLUTION:
            continue
        inputs = [layer.get_input(j) for j in range(min(2, layer.num_inputs))]
        quantized = [made_by.get(tensor.name) == trt.LayerType.DEQUANTIZE for tensor in inputs if tensor is not None]
        if len(quantized) == 2 and all(quantized):
            counts["int8"] += 1
        else:
            counts["fp16" if inputs[0].dtype == trt.float16 else "fp32"] += 1
    return dict(counts)


def _sentence(error: Any) -> str:
    return f"{error.node_operator()} {error.node_name()}: {error.desc().strip()}".strip()


def _monitor(trt: Any, say: Callable[[str], None]) -> Any:
    """Tells how far a build is, at each tenth of its outermost phase."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}
            self.told: set[tuple[str, int]] = set()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                self.steps[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            if steps := self.steps.get(phase_name):
                tenth = 10 * (step + 1) // steps
                if (phase_name, tenth) not in self.told:
                    self.told.add((phase_name, tenth))
                    say(f"Building the engine: {10 * tenth} %")
            return True

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

    return Monitor()
