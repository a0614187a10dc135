# SPDX-License-Identifier: Apache-2.0
"""Writes tests/golden/sampling/cases.json: what transformers' logits processors keep, and with which
probabilities, for a set of parameter combinations. The C++ filters are held against it.

Needs: Python 3.11, torch 2.x (CPU), transformers 5.17.0.
Run:   python tools/sampling/make_golden.py
"""
import json
import pathlib

import torch
from transformers.generation import logits_process as lp

VOCAB = 48
EOS = [1, 5]
OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/sampling/cases.json"

CASES = [  # temperature, top_k, top_p, min_p, repetition_penalty, min_tokens
    (1.0, 0, 1.0, 0.0, 1.0, 0),
    (0.7, 20, 0.8, 0.0, 1.0, 0),
    (0.6, 20, 0.95, 0.0, 1.0, 0),
    (1.0, 40, 0.95, 0.01, 1.0, 0),
    (1.5, 0, 0.5, 0.0, 1.0, 0),
    (0.3, 5, 1.0, 0.0, 1.3, 0),
    (1.0, 1, 1.0, 0.0, 1.0, 0),
    (1.0, 0, 1.0, 0.2, 1.0, 0),
    (2.0, 0, 0.9, 0.05, 0.8, 0),
    (0.9, 7, 0.6, 0.1, 1.1, 4),
    (1.0, 0, 0.01, 0.0, 1.0, 2),
    (0.05, 10, 0.9, 0.0, 1.05, 0),
    (1.2, 30, 0.99, 0.001, 1.2, 8),
]


def processed(logits, prompt, output, case):
    temperature, top_k, top_p, min_p, repetition, min_tokens = case
    ids = torch.tensor([prompt + output])
    scores = logits.clone().unsqueeze(0)
    if repetition != 1.0:
        scores = lp.RepetitionPenaltyLogitsProcessor(repetition)(ids, scores)
    if min_tokens > 0:
        scores = lp.MinNewTokensLengthLogitsProcessor(len(prompt), min_tokens, EOS, device="cpu")(
            ids, scores)
    if temperature != 1.0:
        scores = lp.TemperatureLogitsWarper(temperature)(ids, scores)
    if top_k > 0:
        scores = lp.TopKLogitsWarper(top_k)(ids, scores)
    if top_p < 1.0:
        scores = lp.TopPLogitsWarper(top_p)(ids, scores)
    if min_p > 0.0:
        scores = lp.MinPLogitsWarper(min_p)(ids, scores)
    return scores[0]


def main():
    generator = torch.Generator().manual_seed(7)
    cases = []
    for index, case in enumerate(CASES):
        for variant in range(3):
            logits = torch.randn(VOCAB, generator=generator) * (1.0, 3.0, 8.0)[variant]
            if variant == 0:  # ties, also at the edge of top_k
                logits = torch.round(logits * 2) / 2
            prompt = torch.randint(0, VOCAB, (6,), generator=generator).tolist()
            output = torch.randint(0, VOCAB, (3,), generator=generator).tolist()
            if variant == 0 and case[2] < 1.0:
                logits += torch.arange(VOCAB) * 1e-3  # top_p order of ties is not defined there
            scores = processed(logits, prompt, output, case)
            probs = torch.softmax(scores, -1)
            kept = [i for i in range(VOCAB) if scores[i] != -float("inf")]
            names = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "min_tokens")
            cases.append({
                "name": f"{index}.{variant}",
                "params": dict(zip(names, case)),
                "logits": [float(x) for x in logits],
                "prompt": prompt,
                "output": output,
                "kept": kept,
                "probs": [round(float(probs[i]), 8) for i in kept],
            })
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"eos": EOS, "cases": cases}, separators=(",", ":")) + "\n")
    print(f"{len(cases)} cases, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
