# SPDX-License-Identifier: Apache-2.0
"""Trains the demo model: a small Qwen3NextForCausalLM and its multi-token-prediction head.

The modules are those of transformers; only the expert layer is computed densely (all experts,
unselected ones weighted 0), which is the same function and faster at this size. The MTP head is
trained on the detached trunk, two steps deep. Writes BF16 shards in the original tensor naming.
Use: train.py TOKENIZER_DIR OUT_DIR --steps N (TOKENIZER_DIR from make_tokenizer.py).
"""

import argparse
import json
import math
import os
import shutil
import time

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.models.qwen3_next import modeling_qwen3_next as modeling

from batches import batches

SHAPES = [(128, 256, 0.05), (32, 1024, 0.55)]  # rows, length, share of long conversations
AUX_WEIGHT = 0.01
MTP_WEIGHTS = (1.0, 0.5)
SHARD_BYTES = 15 * 2**20


def float32_delta_rule(*args, **kwargs):
    with torch.autocast("cuda", enabled=False):
        return CHUNK_RULE(*args, **kwargs)


CHUNK_RULE = modeling.torch_chunk_gated_delta_rule
modeling.torch_chunk_gated_delta_rule = float32_delta_rule


def experts_dense(block, x):
    """Output of a Qwen3NextSparseMoeBlock and its load-balancing loss."""
    flat = x.reshape(-1, x.shape[-1])
    experts = block.experts
    logits = F.linear(flat, block.gate.weight).float()
    probabilities = logits.softmax(-1)
    chosen, index = probabilities.topk(block.gate.top_k, -1)
    chosen = chosen / chosen.sum(-1, keepdim=True)
    weight = torch.zeros_like(probabilities).scatter(1, index, chosen)
    load = (weight > 0).float().mean(0)
    aux = (load * probabilities.mean(0)).sum() * len(load) / block.gate.top_k
    count, width, _ = experts.gate_up_proj.shape
    inner = F.linear(flat, experts.gate_up_proj.reshape(count * width, -1))
    gate, up = inner.view(-1, count, 2, width // 2).unbind(2)
    inner = F.silu(gate) * up * weight.to(gate.dtype)[:, :, None]
    down = experts.down_proj.permute(1, 0, 2).reshape(x.shape[-1], -1)
    routed = F.linear(inner.flatten(1), down)
    shared = block.shared_expert(flat) * block.shared_expert_gate(flat).sigmoid()
    return (routed + shared).view(x.shape), aux


def decoder_layer(layer, x, positions):
    h = layer.input_layernorm(x)
    if hasattr(layer, "linear_attn"):
        h = layer.linear_attn(h)
    else:
        h, _ = layer.self_attn(h, positions, None)
    x = x + h
    y, aux = experts_dense(layer.mlp, layer.post_attention_layernorm(x))
    return x + y, aux


class MtpHead(nn.Module):
    def __init__(self, config):
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.fc = nn.Linear(2 * size, size, bias=False)
        self.pre_fc_norm_embedding = modeling.Qwen3NextRMSNorm(size, eps)
        self.pre_fc_norm_hidden = modeling.Qwen3NextRMSNorm(size, eps)
        attention = config.layer_types.index("full_attention")
        self.layers = nn.ModuleList([modeling.Qwen3NextDecoderLayer(config, attention)])
        self.norm = modeling.Qwen3NextRMSNorm(size, eps)

    def forward(self, embedded, hidden, positions):
        """Hidden states of positions t, and embeddings of tokens t+1, to states for t+2."""
        x = torch.cat([self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden)], -1)
        x, aux = decoder_layer(self.layers[0], self.fc(x), positions)
        return self.norm(x), aux


def weighted_loss(logits, targets, weights):
    each = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), reduction="none")
    return (each * weights.flatten()).sum() / weights.sum()


def losses(model, mtp, ids, weights, layer_step):
    trunk = model.model
    embedded = trunk.embed_tokens(ids)
    places = torch.arange(ids.shape[1], device=ids.device)[None]
    positions = trunk.rotary_emb(embedded, places)
    x, aux = embedded, 0
    for layer in trunk.layers:
        x, one = layer_step(layer, x, positions)
        aux = aux + one / len(trunk.layers)
    x = trunk.norm(x)
    loss = weighted_loss(model.lm_head(x[:, :-1]), ids[:, 1:], weights[:, 1:])
    hidden, ahead, extra = x.detach(), [], 0
    head = model.lm_head.weight.detach()
    for depth, share in enumerate(MTP_WEIGHTS, 1):
        # at this depth row t holds h_t and sees token t+depth; it predicts t+depth+1
        shifted = torch.roll(embedded.detach(), -depth, 1)
        hidden, one = mtp(shifted, hidden, positions)
        logits = F.linear(hidden[:, :-depth - 1], head)
        ahead.append(weighted_loss(logits, ids[:, depth + 1:], weights[:, depth + 1:]))
        extra = extra + share * ahead[-1] + AUX_WEIGHT * one
    return loss + AUX_WEIGHT * aux + extra, loss, aux, ahead


def make_model(folder, device):
    config = AutoConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    mtp = MtpHead(config)
    for part in mtp.modules():
        model._init_weights(part)
    for block in mtp.modules():
        if isinstance(block, nn.Linear):
            nn.init.normal_(block.weight, std=config.initializer_range)
    return model.to(device), mtp.to(device)


def make_optimizer(modules, rate):
    matrices, others = [], []
    for module in modules:
        for name, value in module.named_parameters():
            plain = value.ndim < 2 or "conv1d" in name or "embed" in name
            (others if plain else matrices).append(value)
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0}]
    fused = matrices[0].is_cuda
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=fused)


def rate_at(done, warm=0.03, final=0.02):
    if done < warm:
        return done / warm
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * (done - warm) / (1 - warm)))


def released_tensors(model, mtp):
    """Tensors under the names of the released checkpoints: one tensor per expert."""
    found = {}
    whole = dict(model.state_dict())
    whole.update({"mtp." + name: value for name, value in mtp.state_dict().items()})
    for name, value in whole.items():
        value = value.detach().to("cpu", torch.bfloat16).contiguous()
        if name.endswith("experts.gate_up_proj"):
            base, half = name.removesuffix("gate_up_proj"), value.shape[1] // 2
            for e, both in enumerate(value):
                found[f"{base}{e}.gate_proj.weight"] = both[:half].clone()
                found[f"{base}{e}.up_proj.weight"] = both[half:].clone()
        elif name.endswith("experts.down_proj"):
            for e, one in enumerate(value):
                found[f"{name.removesuffix('down_proj')}{e}.down_proj.weight"] = one.clone()
        else:
            found[name] = value
    return found


def write_shards(folder, tensors):
    shards, size = [{}], 0
    for name, value in tensors.items():
        if size + value.nbytes > SHARD_BYTES:
            shards.append({})
            size = 0
        shards[-1][name] = value
        size += value.nbytes
    total = sum(v.nbytes for v in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": {}}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        safetensors.torch.save_file(shard, os.path.join(folder, file), {"format": "pt"})
        index["weight_map"].update(dict.fromkeys(shard, file))
    with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
        json.dump(index, out, indent=1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tokenizer_dir")
    parser.add_argument("out_dir")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seconds", type=float, default=1e9, help="stretch or cut the schedule")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--rows-divided-by", type=int, default=1, help="for a trial on a CPU")
    parser.add_argument("--compile", action="store_true")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = True
    os.makedirs(args.out_dir, exist_ok=True)
    model, mtp = make_model(args.tokenizer_dir, device)
    count = sum(p.numel() for m in (model, mtp) for p in m.parameters())
    print(f"{count:,} parameters, {sum(p.numel() for p in mtp.parameters()):,} of them mtp")
    optimizer = make_optimizer([model, mtp], args.rate)
    layer_step = torch.compile(decoder_layer) if args.compile else decoder_layer
    shapes = [(rows // args.rows_divided_by, length, s) for rows, length, s in SHAPES]
    plan = [step % 2 for step in range(args.steps)]
    parameters = [p for m in (model, mtp) for p in m.parameters()]
    start = mark = time.time()
    for step, (ids, weights) in enumerate(
            batches(args.tokenizer_dir, "train", shapes, plan, args.workers)):
        done = max((step + 1) / args.steps, (time.time() - start) / args.seconds)
        if done >= 1 and step + 1 < args.steps:
            print(f"out of time at step {step}")
            break
        for group in optimizer.param_groups:
            group["lr"] = args.rate * rate_at(done)
        ids = torch.from_numpy(ids).to(device, non_blocking=True)
        weights = torch.from_numpy(weights).to(device, non_blocking=True)
        with torch.autocast(device, torch.bfloat16):
            total, loss, aux, ahead = losses(model, mtp, ids, weights, layer_step)
        total.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if step % 100 < 2 or step + 1 == args.steps:
            now = time.time()
            print(f"step {step} shape {shapes[plan[step]][:2]} loss {loss.item():.4f} "
                  f"aux {aux.item():.3f} mtp {' '.join(f'{a.item():.4f}' for a in ahead)} "
                  f"norm {norm.item():.2f} lr {args.rate * rate_at(done):.2e} "
                  f"{now - start:.1f} s (+{now - mark:.2f})", flush=True)
            mark = now
    if device == "cuda":
        print(f"peak memory {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    write_shards(args.out_dir, released_tensors(model, mtp))
    for name in ("config.json", "generation_config.json", "tokenizer.json",
                 "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(os.path.join(args.tokenizer_dir, name), args.out_dir)


if __name__ == "__main__":
    main()
