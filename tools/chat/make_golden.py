# SPDX-License-Identifier: Apache-2.0
"""Writes the golden renderings of tests/golden/chat with Python's jinja2, set up by transformers.

Needs jinja2 3.1.6 and transformers 5.17.0:  python tools/chat/make_golden.py [checkpoint folder …]
Folders given as arguments are checkpoints whose own chat_template.jinja is rendered as well; these
go to conversations_extra.json. Output is deterministic.
"""
import json
import pathlib
import sys

import jinja2
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

from cases import CASES, ERROR_CASES
from conversations import conversations

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests" / "golden" / "chat"
TEMPLATES = ["qwen3_next_instruct", "qwen3_next_thinking", "qwen3_coder_next"]


def with_argument_objects(messages):
    """What a server hands to a template that iterates over arguments."""
    out = json.loads(json.dumps(messages))
    for message in out:
        for call in message.get("tool_calls") or []:
            function = call.get("function", call)
            if isinstance(function.get("arguments"), str):
                function["arguments"] = json.loads(function["arguments"] or "{}")
    return out


def render(source, conversation, needs_objects):
    messages = conversation["messages"]
    if needs_objects:
        messages = with_argument_objects(messages)
    try:
        rendered, _ = render_jinja_template(
            conversations=[messages],
            tools=conversation.get("tools"),
            chat_template=source,
            add_generation_prompt=conversation["add_generation_prompt"],
            **conversation.get("extra", {}),
        )
        return {"text": rendered[0]}
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}


def render_all(sources):
    rows = []
    for conversation in conversations():
        row = dict(conversation)
        row["rendered"] = {
            name: render(source, conversation, "arguments | items" in source or "arguments|items" in source)
            for name, source in sources.items()
        }
        rows.append(row)
    return rows


def render_case(template, context):
    return _compile_jinja_template(template).render(**context)


def case_rows():
    rows = []
    for template, context in CASES + ERROR_CASES:
        try:
            result = {"expected": render_case(template, context)}
        except Exception as error:  # any Python error counts as a refusal
            result = {"error": f"{type(error).__name__}: {error}"}
        refused = (template, context) in ERROR_CASES
        if refused != ("error" in result):
            print("not as listed:", repr(template), result)
        rows.append({"template": template, "context": context, **result})
    return rows


def write(name, rows):
    path = ROOT / name
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes")


def main():
    sources = {name: (ROOT / "templates" / f"{name}.jinja").read_text() for name in TEMPLATES}
    write("conversations.json", render_all(sources))
    write("cases.json", case_rows())
    extra = {folder: pathlib.Path(folder, "chat_template.jinja").read_text() for folder in sys.argv[1:]}
    if extra:
        write("conversations_extra.json", render_all(extra))


if __name__ == "__main__":
    main()
