"""Training computes in bfloat16 only where the processor does, since imitating it takes nine times as long."""

import platform
from pathlib import Path

import pytest
import torch

from cxredge.train.precision import autocast, computes_in_bfloat16, in_words

CPU = torch.device("cpu")


@pytest.mark.skipif(platform.system() != "Linux" or platform.machine() != "x86_64", reason="reads x86 flags from /proc")
def test_bfloat16_where_linux_says_avx512() -> None:
    flags = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")).split()
    assert computes_in_bfloat16(CPU) == {"avx512bw", "avx512dq", "avx512vl"}.issubset(flags)


@pytest.mark.parametrize(
    ("able", "bfloat16"),
    [
        ({"architecture": "x86_64", "avx2": True, "fma3": True}, False),
        ({"architecture": "x86_64", "avx512_bw": True, "avx512_dq": True, "avx512_vl": True}, True),
        ({"architecture": "x86_64", "avx512_f": True, "avx512_cd": True}, False),
        ({"architecture": "aarch64", "neon": True, "dot": True}, False),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, True),
    ],
)
def test_other_processors(able: dict[str, object], bfloat16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # No test machine is all of these: only what torch says of the processor is replaced.
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    with autocast(CPU):
        assert torch.nn.Linear(8, 8)(torch.ones(2, 8)).dtype == (torch.bfloat16 if bfloat16 else torch.float32)
    assert in_words(CPU) == ("bfloat16 autocast" if bfloat16 else "float32")
