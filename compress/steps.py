"""The steps of a compression recipe that come before quantization, in the order the recipe lists them."""

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from cxredge.train.recipe import Recipe as Training

Share = Annotated[float, Field(gt=0, lt=1)]
# The parent decides these: another split would show the student its validation films, another size or meaning of labels is
# another task.
_PARENT_S = {"validation_share", "split_seed", "size", "clahe", "uncertain"}
_ADDED_SINCE = {"unlabelled", "sensitivity"}


class _Step(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="wrap")
    def _said(self, said: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the options added since that are not used, so that steps done before are found by the name they had."""
        return {key: value for key, value in said(self).items() if value or key not in _ADDED_SINCE}


class _Fit(_Step):
    """teachers: runs or bundles by path, "parent" for the network that is compressed; their mean logit is learned.

    training: keys of a training recipe that differ from `train`'s defaults. unlabelled: folders or tables of films that the
    teachers alone tell of (see `train.unlabelled`).
    """

    teachers: tuple[str, ...] = ("parent",)
    training: dict[str, Any] = {}
    unlabelled: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _trainable(self) -> Self:
        if given := sorted(_PARENT_S & set(self.training)):
            raise ValueError(f"training: {', '.join(given)} is the parent's to say")
        Training(**self.training)
        return self


class Distil(_Fit):
    """A new network, of the same kind as its teachers or another, learns from them (Hinton et al. 2015)."""

    do: Literal["distil"]


class Finetune(_Fit):
    """The network as it is by now learns on."""

    do: Literal["finetune"]

    @model_validator(mode="after")
    def _goes_on(self) -> Self:
        if given := sorted({"architecture", "weights"} & set(self.training)):
            raise ValueError(
                f"training: a finetune step goes on with the network it finds; leave out {', '.join(given)}"
            )
        return self


class Prune(_Step):
    """Whole channels leave (see `prune`). macs, latency: the share that is left of one of the two, of the network that the step
    finds: to prune in several goes is to prune and finetune in turns, three times to 0.8 for a half.

    engine: the runtime that latency is measured in. films: training films that weigh the channels. sensitivity: of them, so many
    tell first what each group of channels costs by itself, and groups that cost much are spared; 0: no such scan, every group's
    channels compare by their importance alone. Of the shipped ChestX-ray14 network, not trained again, a scan by 24 films
    left 0.022 instead of 0.041 of mean difference of probability at 0.74 of the multiplications, 0.071 instead of 0.084 at 0.49.
    round_to: channel counts are multiples of it. ONNX Runtime's depthwise kernels work on 16 channels at a time and take half as
    long again for 88 channels as for 96.
    """

    do: Literal["prune"]
    macs: Share | None = None
    latency: Share | None = None
    engine: Literal["onnxruntime", "openvino"] = "onnxruntime"
    importance: Literal["taylor", "group-norm"] = "taylor"
    films: Annotated[int, Field(ge=8)] = 512
    round_to: Annotated[int, Field(ge=1)] = 16
    sensitivity: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _one_aim(self) -> Self:
        if (self.macs is None) == (self.latency is None):
            raise ValueError("say what is to be left: macs or latency, one of the two")
        return self


class Take(_Step):
    """The network as an earlier chain left it, in full precision, out of a MobileNetV2 bundle that carries it (`model.float.onnx`):
    what was pruned once is quantized anew, or learns on, without the runs that made it.

    bundle: its folder or name, "parent" for the bundle that is compressed. Only the first step can be one.
    """

    do: Literal["take"]
    bundle: str = "parent"


Step = Annotated[Distil | Finetune | Prune | Take, Field(discriminator="do")]
