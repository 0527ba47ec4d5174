"""What DenseNet121's pre-activation norms cost in INT8, and what it brings to absorb them: latency side by side, and fidelity.

    python -m cxredge.compress.preactivation_cost data/chest_xray --output benchmarks/results/preactivation.json

Needs the extra `compress`. Without --weights the network is random, its norms settled on films: times do not depend on
weights, fidelity does. All graphs are measured in one run, in turns, one thread, by wall clock and by the processor time of the
thread, which a busy machine distorts less.
"""

import json
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from rich.console import Console
from safetensors.torch import load_file

from cxredge import __version__
from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import fit_feature_distance
from cxredge.compress.fused import fused
from cxredge.compress.integer_concat import share_grid
from cxredge.compress.preactivation import absorb_norms, standardized
from cxredge.compress.quantize import quantize
from cxredge.devices import this_machine
from cxredge.imaging import Preprocessing, read_film
from cxredge.runtimes import Artifact, runtime
from cxredge.train.network import FilmNetwork
from cxredge.train.sources import read_source

SIZE, FINDINGS = 224, 3
FORMS = ("fp32", "int8, norms in float", "int8, norms absorbed")


def main(
    data: Annotated[Path, typer.Argument(help="A data set in its published layout.", show_default=False)],
    weights: Annotated[Path | None, typer.Option(help="A state of FilmNetwork(densenet121, 3), .safetensors.")] = None,
    films: Annotated[int, typer.Option(min=16, help="Films to settle, calibrate and compare on, each.")] = 16,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of three runs per graph and engine.")] = 6,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="JSON with all figures.")] = None,
) -> None:
    """Measure DenseNet121 in float, in INT8 as it was, and in INT8 without pre-activation norms."""
    files = read_source(data).split("train").files
    chosen = np.random.default_rng(0).choice(len(files), 2 * films, replace=False)
    planes = np.stack([read_film(files[i], Preprocessing(size=SIZE)).image for i in chosen])
    with tempfile.TemporaryDirectory() as scratch:
        graphs = _graphs(_network(weights, planes[:films]), planes[:films], Path(scratch))
        found: dict[str, Any] = {
            "command": f"python -m cxredge.compress.preactivation_cost {data.name} --films {films} --rounds {rounds}",
            "date": date.today().isoformat(),
            "cxredge": __version__,
            "machine": this_machine().text,
            "weights": weights.name if weights else "random, norms settled on films",
            "forms": dict.fromkeys(FORMS),
        }
        engines = [name for name in ("onnxruntime", "openvino") if runtime(name).available() is True]
        times = {engine: _times(engine, graphs, planes[:1], rounds) for engine in engines}
        for form, graph in graphs.items():
            found["forms"][form] = {engine: times[engine][form] | _fused(engine, graph) for engine in engines}
            found["forms"][form]["against_fp32"] = _fidelity(graphs["fp32"], graph, planes[films:])
    Console().print_json(json.dumps(found))
    if output is not None:
        output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


@torch.no_grad()
def _network(weights: Path | None, planes: NDArray[np.uint8]) -> FilmNetwork:
    torch.manual_seed(0)
    network = FilmNetwork("densenet121", FINDINGS)
    if weights is not None:
        network.load_state_dict(load_file(weights))
        return network.eval()
    for layer in network.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = None
    network(torch.from_numpy(planes))
    return network.eval()


def _graphs(network: FilmNetwork, planes: NDArray[np.uint8], folder: Path) -> dict[str, Path]:
    gate = fit_feature_distance(np.random.default_rng(0).normal(size=(64, 512)).astype(np.float32), 4)
    absorbed = absorb_norms(network)
    made = {}
    for name, form, its_gate in (("plain", network, gate), ("absorbed", absorbed, standardized(network, gate))):
        made[name] = folder / f"{name}.onnx"
        export(Contract(Trunk(form), head_for(form, list(range(FINDINGS))), its_gate), SIZE, made[name])
        (folder / name).mkdir()
        quantize(made[name], folder / name / "model.onnx", planes, percentile=99.99, float_layers=[0])
    share_grid(folder / "absorbed" / "model.onnx")
    int8 = [folder / name / "model.onnx" for name in made]
    return dict(zip(FORMS, [made["plain"], *int8], strict=True))


def _times(engine: str, graphs: dict[str, Path], image: NDArray[np.uint8], rounds: int) -> dict[str, dict[str, Any]]:
    sessions = {form: runtime(engine).load(Artifact(engine, graph), 1) for form, graph in graphs.items()}
    wall: dict[str, list[float]] = {form: [] for form in graphs}
    own: dict[str, list[float]] = {form: [] for form in graphs}
    for _ in range(rounds):
        for form, session in sessions.items():
            session.run(image)
            for _ in range(3):
                begin, thread = time.perf_counter(), time.thread_time()
                session.run(image)
                own[form].append(1000 * (time.thread_time() - thread))
                wall[form].append(1000 * (time.perf_counter() - begin))
    first = {kind: np.median(times[FORMS[0]]) for kind, times in (("wall", wall), ("cpu", own))}
    return {
        form: {
            "wall_ms": [round(ms, 2) for ms in wall[form]],
            "cpu_ms": [round(ms, 2) for ms in own[form]],
            "times_fp32_wall": round(float(first["wall"] / np.median(wall[form])), 2),
            "times_fp32_cpu": round(float(first["cpu"] / np.median(own[form])), 2),
        }
        for form in graphs
    }


def _fused(engine: str, graph: Path) -> dict[str, int]:
    found = fused(engine, graph)
    return {"convolutions": found.convolutions, "quantized": found.quantized}


def _fidelity(full: Path, graph: Path, planes: NDArray[np.uint8]) -> dict[str, float]:
    one, other = (
        np.concatenate(
            [runtime("onnxruntime").load(Artifact("onnxruntime", path), 1).run(planes).logits.astype(np.float64)]
        )
        for path in (full, graph)
    )
    chance = [1 / (1 + np.exp(-logits)) for logits in (one, other)]
    correlation = [np.corrcoef(one[:, i], other[:, i])[0, 1] for i in range(one.shape[1])]
    return {
        "lowest_correlation": round(float(min(correlation)), 4),
        "mean_probability": round(float(np.abs(chance[0] - chance[1]).mean()), 4),
        "mean_logit": round(float(np.abs(one - other).mean()), 4),
        "films": len(planes),
    }


if __name__ == "__main__":
    typer.run(main)
