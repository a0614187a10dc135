# SPDX-License-Identifier: Apache-2.0
"""A conversation, its key, and the rule that says which keys are kept out of training."""

import zlib
from dataclasses import dataclass, field

HELDOUT_SHARE = 16


@dataclass
class Conversation:
    task: str
    messages: list
    tools: list = field(default_factory=list)
    expected: str = ""
    key: str = ""


def is_held_out(key):
    return zlib.crc32(key.encode()) % HELDOUT_SHARE == 0


def exchange(task, question, answer, key=None):
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation(task, messages, [], answer, task + ":" + (key or question))
