"""The arithmetic that training runs in: bfloat16 where the processor computes in it, floats where it would have to imitate it."""

import torch


def autocast(device: torch.device, *, bfloat16: bool | None = None) -> torch.autocast:
    """The context that forward passes run in on this device. bfloat16: whether in it; None: where it is the faster."""
    chosen = computes_in_bfloat16(device) if bfloat16 is None else bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=chosen)


def computes_in_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is faster there than floats.

    oneDNN has bfloat16 kernels for x86 with AVX-512 (BW, DQ, VL) and for Arm with the BF16 extension. Elsewhere it falls back to
    plain loops: on a first-generation EPYC (AVX2 alone) networks then train at a seventh to a ninth of their speed in floats,
    see benchmarks/results/training-throughput-avx2.json. GPUs before Ampere imitate it too.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    able = torch.cpu.get_capabilities()
    return bool(able.get("bf16")) or all(able.get(f"avx512_{part}") for part in ("bw", "dq", "vl"))


def in_words(device: torch.device) -> str:
    """For the record of a run's environment."""
    return "bfloat16 autocast" if computes_in_bfloat16(device) else "float32"
