# SPDX-License-Identifier: Apache-2.0
"""Asks the demo model the held-out questions (greedy) and prints a table.

An answer is right when the text up to <|im_end|> equals the expected one exactly. Also prints the
perplexity of heldout.txt and how often the MTP head's first draft is what the trunk says next.
Use: evaluate.py MODEL_DIR HELDOUT_DIR [--dtype float32] [--limit N] [--out FILE]
[--reference FULL_DIR]
"""

import argparse
import collections
import json
import math
import os
import time

import tokenizers
import torch

import checkpoint
from train import MtpHead


def generate_batch(model, rows, pad, end, length):
    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(r)) + r for r in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=model.device)
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=length,
                             do_sample=False, temperature=None, top_k=None, top_p=None,
                             eos_token_id=end, pad_token_id=pad)
    return out[:, width:].tolist()


def ask_all(model, tokenizer, items, batch):
    pad, end = (tokenizer.token_to_id(t) for t in ("<|endoftext|>", "<|im_end|>"))
    rows = [tokenizer.encode(item["prompt"]).ids for item in items]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    answers = [""] * len(rows)
    for at in range(0, len(order), batch):
        some = order[at:at + batch]
        room = max(len(tokenizer.encode(items[i]["expected"]).ids) for i in some) + 4
        for i, out in zip(some, generate_batch(model, [rows[i] for i in some], pad, end, room)):
            out = out[:out.index(end)] if end in out else out + [pad]
            answers[i] = tokenizer.decode(out, skip_special_tokens=False)
    return answers


def text_measures(model, tokenizer, text, reference=None, window=1024):
    """Perplexity; with a reference also mean KL(reference || model) and top-1 agreement."""
    ids = tokenizer.encode(text).ids
    total = divergence = same = count = 0
    for at in range(0, len(ids) - 1, window):
        part = torch.tensor([ids[at:at + window]], device=model.device)
        if part.shape[1] < 2:
            continue
        with torch.no_grad():
            ours = model(input_ids=part).logits[0, :-1].float().log_softmax(-1)
            theirs = ours
            if reference:
                theirs = reference(input_ids=part).logits[0, :-1].float().log_softmax(-1)
        total -= ours.gather(1, part[0, 1:, None]).sum().item()
        divergence += (theirs.exp() * (theirs - ours)).sum().item()
        same += (ours.argmax(-1) == theirs.argmax(-1)).sum().item()
        count += part.shape[1] - 1
    return {"tokens": len(ids), "perplexity": math.exp(total / count),
            "kl": divergence / count, "top1": same / count}


def draft_agreement(model, mtp_tensors, tokenizer, items):
    """Share of answer tokens (after the first two) that the head's first draft foresees."""
    head = MtpHead(model.config).to(model.device, model.dtype)
    head.load_state_dict(mtp_tensors)
    same = count = 0
    for item in items:
        prompt = tokenizer.encode(item["prompt"]).ids
        ids = prompt + tokenizer.encode(item["expected"] + "<|im_end|>").ids
        ids = torch.tensor([ids], device=model.device)
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state
            embedded = torch.roll(model.model.embed_tokens(ids), -1, 1)
            places = torch.arange(ids.shape[1], device=ids.device)[None]
            states, _ = head(embedded, hidden, model.model.rotary_emb(hidden, places))
            says = model.lm_head(hidden).argmax(-1)[0]  # says[t]: token t+1
            drafts = model.lm_head(states).argmax(-1)[0]  # drafts[t]: token t+2
        first = len(prompt) - 1
        same += (drafts[first:-2] == says[first + 1:-1]).sum().item()
        count += len(says) - 2 - first
    return same / count


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model_dir")
    parser.add_argument("heldout_dir")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--limit", type=int, default=10**9, help="items per task")
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--reference", help="full-precision folder to compare text with")
    parser.add_argument("--out", help="write the results as JSON")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(args.model_dir, "tokenizer.json"))
    model, mtp = checkpoint.load(args.model_dir, getattr(torch, args.dtype), device)
    started = time.time()
    taken, items = collections.Counter(), []
    for item in checkpoint.read_json(args.heldout_dir, "heldout.json"):
        taken[item["task"]] += 1
        if taken[item["task"]] <= args.limit:
            items.append(item)
    answers = ask_all(model, tokenizer, items, args.batch)
    right, asked, wrong = collections.Counter(), collections.Counter(), []
    for item, answer in zip(items, answers):
        asked[item["task"]] += 1
        right[item["task"]] += answer == item["expected"]
        if answer != item["expected"]:
            wrong.append((item["task"], item["prompt"][-160:], item["expected"], answer))
    for task, prompt, expected, answer in wrong[:40]:
        print(f"WRONG {task}: {prompt!r}\n   expected {expected!r}\n   answered {answer!r}")
    for task, number in asked.items():
        print(f"{task:12} {right[task]:4} of {number:4}  {100 * right[task] / number:6.1f} %")
    total = right.total()
    print(f"{'all':12} {total:4} of {len(items):4}  {100 * total / len(items):6.1f} %")
    with open(os.path.join(args.heldout_dir, "heldout.txt")) as file:
        text = file.read()
    reference = checkpoint.load(args.reference, model.dtype, device)[0] if args.reference else None
    measured = text_measures(model, tokenizer, text, reference)
    agreement = draft_agreement(model, mtp, tokenizer, items[::5])
    print(f"heldout.txt: {measured['tokens']} tokens, in windows of 1024 perplexity "
          f"{measured['perplexity']:.4f}")
    if reference:
        print(f"against the reference: mean KL {measured['kl']:.5f} nat, "
              f"same top token {100 * measured['top1']:.2f} %")
    print(f"first MTP draft equals the trunk's next token: {100 * agreement:.1f} %")
    print(f"{args.dtype} on {device}, {time.time() - started:.0f} s")
    if args.out:
        with open(args.out, "w") as file:
            json.dump({"right": right, "asked": asked, "text": measured,
                       "mtp_agreement": agreement}, file, indent=1)


if __name__ == "__main__":
    main()
