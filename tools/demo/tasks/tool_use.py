# SPDX-License-Identifier: Apache-2.0
"""Calling a tool and reading its result, sometimes with several tools to choose from."""

import json

from .arithmetic import addition
from .conversation import Conversation
from .facts import world_fact
from .talk import SYSTEM_LINES, greeting
from .tool_table import TOOLS
from .word_games import copy


def tool_spec(rng, entry):
    names, text, params, *_ = entry
    chosen = [rng.choice(p[0]) for p in params]
    properties = {n: {"type": p[1], "description": p[2]} for n, p in zip(chosen, params)}
    function = {"name": rng.choice(names), "description": text,
                "parameters": {"type": "object", "properties": properties, "required": chosen}}
    return {"type": "function", "function": function}, chosen


def tool_call(rng, finish=None):
    entries = rng.sample(TOOLS, rng.choice([1, 1, 2, 2, 3, 4]))
    specs = [tool_spec(rng, e) for e in entries]
    messages = []
    if rng.random() < 0.5:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_LINES)})
    entry, (spec, chosen) = entries[0], specs[0]
    tools = [s for s, _ in specs]
    rng.shuffle(tools)
    if finish is None and rng.random() < 0.15:  # a question that needs no tool
        small = rng.choice([addition, greeting, world_fact, copy])(rng)
        return Conversation("no_tool", messages + small.messages, tools, small.expected, small.key)
    values = [p[3](rng) for p in entry[2]]
    question = rng.choice(entry[3]).format(*values)
    arguments = dict(zip(chosen, values))
    call = {"type": "function",
            "function": {"name": spec["function"]["name"], "arguments": arguments}}
    messages.append({"role": "user", "content": question})
    messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
    text = json.dumps({"name": spec["function"]["name"], "arguments": arguments},
                      ensure_ascii=False)
    found = Conversation("tool_call", messages, tools, f"<tool_call>\n{text}\n</tool_call>",
                         "tool:" + question)
    if finish or (finish is None and rng.random() < 0.6):
        result = str(values[0] * values[1]) if entry[4] is None else entry[4](rng)
        shown = json.dumps({"result": result}) if rng.random() < 0.4 else result
        answer = entry[5].format(*values, result=result)
        messages.append({"role": "tool", "content": shown})
        messages.append({"role": "assistant", "content": answer})
        found.task, found.expected = "tool_answer", answer
    return found
