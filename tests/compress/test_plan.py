"""What a recipe cannot have is told before its first step begins, not after hours of training."""

from pathlib import Path

import pytest
from house import FILMS, Cli
from untrained import patches, untrained

from cxredge.compress.export import Contract, Trunk, export, head_for
from cxredge.compress.feature_distance import features, fit_feature_distance
from cxredge.compress.recipe import AccuracyControl, Recipe, read_recipe
from cxredge.compress.run import compress
from cxredge.compress.to_int8 import Quantizable, to_int8
from cxredge.errors import CxredgeError, RecipeError

DATA = [FILMS / "chestxray14", FILMS / "chest_xray"]
RECIPE = """
name = "small"
title = "Small"
version = "0"
source = "kermany"
urgent = ["Paediatric_Pneumonia"]
gate_films = 16
gate_components = 4
reference_films = 8
intended_use = "Tests; not a medical device."
population = "Children of 1-5 years."
licence = "CC BY 4.0"
"""
FIRST = """
[[steps]]
do = "finetune"
training = { epochs = 1, batch_size = 8 }
"""
SOURCES = """
[sources]
kermany = "Twenty-four films."
"""
DISTIL = '[[steps]]\ndo = "distil"\n'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cli = Cli(tmp_path_factory.mktemp("trained"))
    (cli.folder / "train.toml").write_text(
        'weights = "none"\nsize = 64\nvalidation_share = 0.35\nepochs = 1\nbatch_size = 8\n'
    )
    data = [word for folder in DATA for word in ("--data", folder)]
    made = cli("train", *data, "--recipe", "train.toml", "-o", "run")
    assert made.returncode == 0, made.stderr
    return cli.folder / "run"


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (
            FIRST + '[[steps]]\ndo = "finetune"\nteachers = ["runs/tpyo"]\n',
            "^step 2 of 2: finetune: runs/tpyo: neither a finished run",
        ),
        (
            FIRST + DISTIL + 'training = { weights = "typo.safetensors" }\n',
            "^step 2 of 2: distil: typo.safetensors: no such weights",
        ),
        (FIRST + DISTIL + 'training = { weights = "none" }\nunlabelled = ["nowhere"]\n', "^step 2 of 2: .*nowhere"),
        # All mistakes at once.
        (
            FIRST + 'teachers = ["a"]\n' + DISTIL + 'teachers = ["b"]\n',
            "^step 1 of 2: finetune: a: neither [^\n]*\nstep 2 of 2: distil: b: neither",
        ),
        # AlexNet has 5 convolutions, a MobileNetV2 52 before its head.
        (FIRST + DISTIL + 'training = { architecture = "alexnet", weights = "none" }\n', "float_layers = 5 "),
        ("float_layers = 52\n" + FIRST, "float_layers = 52 leaves nothing to quantize: .* give less than 52"),
        (FIRST + "[quantization_aware]\nfloat_layers = 100\n", "float_layers = 100 leaves nothing to quantize"),
    ],
)
def test_a_mistake_of_a_later_step_is_told_before_the_first_one_begins(
    told: str, says: str, run: Path, tmp_path: Path
) -> None:
    recipe, said = tmp_path / "recipe.toml", list[str]()
    own = "" if "float_layers" in told else "float_layers = 5\n"
    recipe.write_text(RECIPE + own + told + SOURCES)
    cache = run.with_name("cache-of-films")
    with pytest.raises(RecipeError, match=says):
        compress(
            run, DATA, read_recipe(str(recipe)), tmp_path / "out",
            report=tmp_path / "report", cache=cache, say=said.append,
        )  # fmt: skip
    assert not said
    assert not (cache / "steps").exists()


def test_a_network_of_which_nothing_is_in_8_bits_in_the_end_is_no_int8_one(tmp_path: Path) -> None:
    network, films, graph = untrained(2), patches(16), tmp_path / "fp32.onnx"
    gate, head = fit_feature_distance(features(network, films), 4), head_for(network, [0, 1])
    export(Contract(Trunk(network), head, gate), 64, graph)
    floats = Quantizable(network, head, None, gate, 64, graph, graph)
    # One convolution is left, and accuracy control takes that one too.
    recipe = Recipe(
        name="small", title="", version="0", source="x", urgent=(), intended_use="", population="", licence="", sources={},
        float_layers=51, accuracy_control=AccuracyControl(films=8, most=1, slower=99),
    )  # fmt: skip
    with pytest.raises(CxredgeError, match="only 0 of 53 convolutions came out quantized"):
        to_int8(floats, films, films, recipe, tmp_path / "int8.onnx", checkpoint=tmp_path / "no.ckpt", say=print)
