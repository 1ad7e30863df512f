"""Where bfloat16 is used: not on a processor that would have to emulate it."""

from __future__ import annotations

import pytest
import torch

from hist2scrna.encoders.precision import has_bfloat16


@pytest.mark.parametrize(
    ("limit", "allowed"),
    [("AVX2", False), ("AVX512_CORE", False), ("AVX512_CORE_BF16", True), ("AVX512_CORE_AMX", True), ("ALL", True)],
)
def test_a_limit_on_instructions_is_heeded(monkeypatch, limit, allowed):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    assert has_bfloat16(torch.device("cpu")) is allowed
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False})
    assert has_bfloat16(torch.device("cpu")) is False
