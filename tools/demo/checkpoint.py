# SPDX-License-Identifier: Apache-2.0
"""Reads the demo checkpoint, BF16 or 4-bit GPTQ, into transformers modules."""

import glob
import json
import os
import re

import safetensors.torch
import torch
from transformers import AutoConfig, AutoModelForCausalLM


def unpack_nibbles(words, axis):
    """int32 words to their eight 4-bit codes, low nibble first, along axis."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32)
    codes = (words.unsqueeze(axis + 1) >> shifts.view(-1, *[1] * (words.ndim - 1 - axis))) & 15
    return codes.flatten(axis, axis + 1)


def dequantize(qweight, qzeros, scales, g_idx):
    """GPTQ version 1 tensors to a float32 weight [out, in]."""
    codes = unpack_nibbles(qweight, 0)
    zeros = unpack_nibbles(qzeros, 1) + 1
    group = g_idx.long()
    return (scales.float()[group] * (codes - zeros[group]).float()).T.contiguous()


def read_tensors(folder):
    """All tensors by released name; GPTQ linears come back as float32 `.weight`."""
    found = {}
    for file in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        found.update(safetensors.torch.load_file(file))
    for name in [n for n in found if n.endswith(".qweight")]:
        base = name.removesuffix("qweight")
        parts = [found.pop(base + p) for p in ("qweight", "qzeros", "scales", "g_idx")]
        found[base + "weight"] = dequantize(*parts)
    return found


def fuse_experts(tensors):
    """Per-expert tensors to the two stacked parameters that transformers 5 holds."""
    fused, experts = {}, {}
    for name, value in tensors.items():
        match = re.fullmatch(r"(.*\.experts\.)(\d+)\.(gate|up|down)_proj\.weight", name)
        if match:
            experts.setdefault(match[1], {})[match[3], int(match[2])] = value
        else:
            fused[name] = value
    for base, parts in experts.items():
        count = len(parts) // 3
        both = [torch.cat([parts["gate", e], parts["up", e]]) for e in range(count)]
        fused[base + "gate_up_proj"] = torch.stack(both)
        fused[base + "down_proj"] = torch.stack([parts["down", e] for e in range(count)])
    return fused


def load(folder, dtype=torch.float32, device="cpu"):
    """The trunk as AutoModelForCausalLM, and the mtp.* tensors (prefix removed)."""
    tensors = {n: v.to(dtype) for n, v in fuse_experts(read_tensors(folder)).items()}
    mtp = {n[4:]: v for n, v in tensors.items() if n.startswith("mtp.")}
    config = AutoConfig.from_pretrained(folder)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if device == "cpu":  # the loop over experts is slow; the grouped product wants BF16 on a GPU
        model.set_experts_implementation("grouped_mm")
    else:
        model.set_experts_implementation("eager")
    model.load_state_dict({n: v for n, v in tensors.items() if not n.startswith("mtp.")})
    return model.eval().to(device), mtp


def read_json(*path):
    with open(os.path.join(*path)) as file:
        return json.load(file)
