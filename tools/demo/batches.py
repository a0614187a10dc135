# SPDX-License-Identifier: Apache-2.0
"""Endless training batches: conversations tokenized and packed into rows by worker processes."""

import multiprocessing
import os
import random

import numpy as np
import tokenizers

import generate

OTHER_WEIGHT = 0.1  # of a token that the model would not have to write (assistant tokens: 1)


class Packer:
    """Fills rows of a fixed length with whole conversations, the first of a pool that fits."""

    def __init__(self, tokenizer, seed, length, long_share):
        self.tokenizer, self.length, self.long_share = tokenizer, length, long_share
        self.rng = random.Random(seed)
        self.pool = []
        self.pad = tokenizer.token_to_id("<|endoftext|>")
        self.start = tokenizer.token_to_id("<|im_start|>")
        self.end = tokenizer.token_to_id("<|im_end|>")
        self.assistant = tokenizer.encode("assistant\n").ids

    def refill(self):
        texts = []
        for _ in range(256):
            table = generate.LONG if self.rng.random() < self.long_share else generate.SHORT
            texts.append(generate.render(generate.training_conversation(self.rng, table)))
        found = [e.ids for e in self.tokenizer.encode_batch(texts)]
        self.pool += [ids for ids in found if len(ids) <= self.length]

    def row(self):
        ids = []
        while True:
            if len(self.pool) < 128:
                self.refill()
            room = self.length - len(ids)
            at = next((i for i, doc in enumerate(self.pool) if len(doc) <= room), None)
            if at is None:
                return ids + [self.pad] * room
            ids += self.pool.pop(at)
            if room < 24:
                return ids + [self.pad] * (self.length - len(ids))

    def weights(self, ids):
        """Weight of each token as a prediction target."""
        weights = np.full(len(ids), OTHER_WEIGHT, np.float32)
        for at in np.flatnonzero(ids == self.start):
            head = at + 1 + len(self.assistant)
            if list(ids[at + 1:head]) == self.assistant:
                stop = head + int(np.argmax(ids[head:] == self.end))
                weights[head:stop + 1] = 1
        weights[ids == self.pad] = 0
        return weights

    def batch(self, rows):
        ids = np.array([self.row() for _ in range(rows)], np.int64)
        return ids, np.stack([self.weights(row) for row in ids])


def work(folder, seed, shapes, plan, out):
    tokenizer = tokenizers.Tokenizer.from_file(os.path.join(folder, "tokenizer.json"))
    packers = [Packer(tokenizer, f"{seed}/{length}", length, share)
               for _, length, share in shapes]
    for kind in plan:
        out.put(packers[kind].batch(shapes[kind][0]))


def batches(folder, seed, shapes, plan, workers):
    """Yields (ids, weights); step i has shape shapes[plan[i]] = (rows, length, long share)."""
    queues = []
    for number in range(workers):
        queue = multiprocessing.Queue(8)
        process = multiprocessing.Process(
            target=work, args=(folder, f"{seed}/{number}", shapes, plan[number::workers], queue),
            daemon=True)
        process.start()
        queues.append(queue)
    for step in range(len(plan)):
        yield queues[step % workers].get()
