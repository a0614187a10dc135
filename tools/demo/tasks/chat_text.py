# SPDX-License-Identifier: Apache-2.0
"""The chat template's text, without the cost of Jinja (make_tokenizer.py checks equality)."""

import json

TOOLS_HEAD = (
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
    "You are provided with function signatures within <tools></tools> XML tags:\n<tools>")
TOOLS_TAIL = (
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments "
    "within <tool_call></tool_call> XML tags:\n<tool_call>\n"
    '{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call><|im_end|>\n')


def dump(value):
    return json.dumps(value, ensure_ascii=False)


def render(conversation, messages=None, add_generation_prompt=False):
    """The chat template's text, without the cost of Jinja (make_tokenizer.py checks equality)."""
    messages = conversation.messages if messages is None else messages
    out = []
    if conversation.tools:
        out.append("<|im_start|>system\n")
        if messages[0]["role"] == "system":
            out.append(messages[0]["content"] + "\n\n")
            messages = messages[1:]
        out.append(TOOLS_HEAD)
        out += ["\n" + dump(t) for t in conversation.tools]
        out.append(TOOLS_TAIL)
    for at, message in enumerate(messages):
        role, content = message["role"], message["content"]
        if role == "tool":
            if at == 0 or messages[at - 1]["role"] != "tool":
                out.append("<|im_start|>user")
            out.append("\n<tool_response>\n" + content + "\n</tool_response>")
            if at + 1 == len(messages) or messages[at + 1]["role"] != "tool":
                out.append("<|im_end|>\n")
            continue
        out.append(f"<|im_start|>{role}\n{content}")
        for index, call in enumerate(message.get("tool_calls", [])):
            function = call["function"]
            out.append("\n" if index or content else "")
            out.append('<tool_call>\n{"name": "' + function["name"] + '", "arguments": ' +
                       dump(function["arguments"]) + "}\n</tool_call>")
        out.append("<|im_end|>\n")
    if add_generation_prompt:
        out.append("<|im_start|>assistant\n")
    return "".join(out)
