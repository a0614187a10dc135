# SPDX-License-Identifier: Apache-2.0
"""Quantizes the trained demo model to 4-bit GPTQ with GPTQModel, on a CPU.

GPTQModel 5.7.0 picks the layers as for the large models of this family: delta-net, expert and
shared-expert linears become 4-bit; full attention, embeddings, lm_head, norms, convolutions,
in_proj_ba, routers and the shared expert's gate stay BF16. It does not know the
multi-token-prediction head, so this script puts the mtp.* tensors (BF16) back, together with the
original config spelling, and writes one file.
Use: quantize_gptq.py MODEL_DIR OUT_DIR (gptqmodel 5.7.0, transformers 4.57.6).
"""

import glob
import json
import os
import random
import shutil
import sys
import tempfile

import safetensors.torch
import tokenizers
import torch
from gptqmodel import GPTQModel, QuantizeConfig

import generate

GROUP = 64
ROWS, LENGTH = 160, 512
SIDE_FILES = ("generation_config.json", "tokenizer.json", "tokenizer_config.json",
              "chat_template.jinja")


def calibration(folder):
    """Full rows of conversations, as in training but from another seed.

    All rows have one length: a padding mask taken at the first layer, which is a delta-net, would
    have the wrong shape for the attention layers; without padding there is no mask.
    """
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    rng = random.Random("calibration")
    rows = []
    while len(rows) < ROWS:
        ids = []
        while len(ids) < LENGTH:
            table = generate.LONG if rng.random() < 0.3 else generate.SHORT
            ids += tokenizer.encode(
                generate.render(generate.training_conversation(rng, table))).ids
        rows.append({"input_ids": ids[:LENGTH], "attention_mask": [1] * LENGTH})
    return rows


def read_all(folder):
    found = {}
    for file in sorted(glob.glob(os.path.join(folder, "*.safetensors"))):
        found.update(safetensors.torch.load_file(file))
    return found


def is_packed(name):
    return name.rsplit(".", 1)[-1] in ("qweight", "qzeros", "scales", "g_idx")


def merge(model_dir, quantized_dir, out_dir):
    original, quantized = read_all(model_dir), read_all(quantized_dir)
    tensors = {n: v.contiguous() for n, v in quantized.items() if is_packed(n)}
    for name, value in original.items():
        if name.removesuffix("weight") + "qweight" not in tensors:
            tensors[name] = value
    missing = [n for n in quantized if n not in tensors]
    assert not missing, missing[:5]
    os.makedirs(out_dir, exist_ok=True)
    file = os.path.join(out_dir, "model.safetensors")
    safetensors.torch.save_file(tensors, file, {"format": "pt"})
    with open(os.path.join(model_dir, "config.json")) as source:
        config = json.load(source)
    with open(os.path.join(quantized_dir, "config.json")) as source:
        config["quantization_config"] = json.load(source)["quantization_config"]
    for name in ("offload_to_disk", "offload_to_disk_path"):  # about the machine, not the file
        config["quantization_config"]["meta"].pop(name, None)
    with open(os.path.join(out_dir, "config.json"), "w") as target:
        json.dump(config, target, indent=2)
        target.write("\n")
    for name in SIDE_FILES:
        shutil.copy(os.path.join(model_dir, name), out_dir)
    count = sum(n.endswith(".qweight") for n in tensors)
    print(f"{count} quantized linears, {os.path.getsize(file):,} bytes")


def main():
    model_dir, out_dir = sys.argv[1:3]
    config = QuantizeConfig(bits=4, group_size=GROUP, sym=True, desc_act=False)
    model = GPTQModel.load(model_dir, config, dtype=torch.float32, device="cpu")
    model.quantize(calibration(model_dir), batch_size=4)
    with tempfile.TemporaryDirectory() as quantized_dir:
        model.save(quantized_dir)
        merge(model_dir, quantized_dir, out_dir)


if __name__ == "__main__":
    main()
