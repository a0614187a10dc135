# SPDX-License-Identifier: Apache-2.0
"""Talks to a running `hotset serve models/demo` through OpenAI's own client: models, chat and
completions whole and streamed, n, echo, logprobs, stop, tool calls there and back, errors, a client
that leaves. Ends with "all fine" or with the first thing that is not.

Needs: Python 3.11, openai==2.54.0.
Run:   python tools/server/openai_smoke.py http://127.0.0.1:8000/v1
"""
import json
import sys

import openai

SUM = [{"role": "user", "content": "What is 27 + 48?"}]
MULTIPLY = {
    "type": "function",
    "function": {
        "name": "multiply_numbers",
        "description": "Multiply two numbers",
        "parameters": {
            "type": "object",
            "properties": {
                "a": {"type": "integer", "description": "First number"},
                "b": {"type": "integer", "description": "Second number"},
            },
            "required": ["a", "b"],
        },
    },
}


def check_chat(client, model):
    whole = client.chat.completions.create(
        model=model, messages=SUM, max_tokens=24, temperature=0, seed=1, logprobs=True,
        top_logprobs=3, response_format={"type": "text"})
    choice = whole.choices[0]
    assert choice.message.role == "assistant"
    assert choice.finish_reason == "stop"
    assert whole.usage.completion_tokens == len(choice.logprobs.content)
    assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)
    print("chat:", repr(choice.message.content))

    text, usage, num_logprobs = "", None, 0
    for chunk in client.chat.completions.create(
            model=model, messages=SUM, max_tokens=24, temperature=0, seed=1, stream=True,
            logprobs=True, stream_options={"include_usage": True}):
        for part in chunk.choices:
            text += part.delta.content or ""
            num_logprobs += len(part.logprobs.content) if part.logprobs else 0
        usage = chunk.usage or usage
    assert text == choice.message.content, (text, choice.message.content)
    assert usage.completion_tokens == whole.usage.completion_tokens == num_logprobs

    with client.chat.completions.stream(model=model, messages=SUM, temperature=0) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.content == choice.message.content

    stopped = client.chat.completions.create(
        model=model, messages=SUM, temperature=0, stop=[" ="])
    assert " =" not in stopped.choices[0].message.content
    assert stopped.choices[0].finish_reason == "stop"


def check_choices(client, model):
    ask = {"model": model, "messages": SUM, "n": 3, "temperature": 1, "seed": 7, "max_tokens": 16}
    whole = client.chat.completions.create(**ask)
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**ask, stream=True):
        for part in chunk.choices:
            texts[part.index] += part.delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]
    print("three choices:", texts)


def check_completions(client, model):
    ask = {"model": model, "prompt": "Once", "max_tokens": 8, "temperature": 0, "n": 2}
    plain = client.completions.create(**ask, logprobs=2)
    assert plain.choices[0].text == plain.choices[1].text
    assert len(plain.choices[0].logprobs.tokens) == 8
    echoed = client.completions.create(**ask, echo=True)
    assert echoed.choices[1].text == "Once" + plain.choices[1].text
    texts = ["", ""]
    for chunk in client.completions.create(**ask, echo=True, stream=True):
        for part in chunk.choices:
            texts[part.index] += part.text
    assert texts == [choice.text for choice in echoed.choices]
    print("completion:", repr(texts[0]))

    stream = client.completions.create(model=model, prompt="Once", max_tokens=1000, stream=True,
                                       extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()


def read_streamed_call(client, ask):
    call, finish_reason = {"id": "", "name": "", "arguments": ""}, None
    for chunk in client.chat.completions.create(**ask, stream=True):
        for part in chunk.choices:
            finish_reason = part.finish_reason or finish_reason
            for piece in part.delta.tool_calls or []:
                assert piece.index == 0
                call["id"] += piece.id or ""
                call["name"] += piece.function.name or ""
                call["arguments"] += piece.function.arguments or ""
    return call, finish_reason


def check_tools(client, model):
    messages = [{"role": "user", "content": "Multiply 912 by 293."}]
    ask = {"model": model, "messages": messages, "tools": [MULTIPLY], "temperature": 0}
    choice = client.chat.completions.create(**ask).choices[0]
    call = choice.message.tool_calls[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content is None
    assert call.type == "function" and call.function.name == "multiply_numbers"
    assert json.loads(call.function.arguments) == {"a": 912, "b": 293}, call.function.arguments
    streamed, finish_reason = read_streamed_call(client, ask)
    assert finish_reason == "tool_calls"
    assert streamed["id"] and streamed["name"] == "multiply_numbers"
    assert json.loads(streamed["arguments"]) == {"a": 912, "b": 293}

    messages.append(choice.message.model_dump(exclude_none=True))
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "267216"})
    answer = client.chat.completions.create(**ask).choices[0]
    assert "267216" in answer.message.content, answer.message.content
    print("tool call:", call.function.arguments, "->", repr(answer.message.content))

    without = client.chat.completions.create(**(ask | {"messages": messages[:1],
                                                       "tool_choice": "none"}))
    assert not without.choices[0].message.tool_calls


def check_errors(client, model):
    wrong_fields = (
        ({"temperature": 9}, openai.BadRequestError, "temperature"),
        ({"n": 9}, openai.BadRequestError, "n"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"response_format": {"type": "json_object"}}, openai.BadRequestError, "response_format"),
        ({"tools": [MULTIPLY], "tool_choice": "required"}, openai.BadRequestError, "tool_choice"),
        ({"messages": [{"role": "user", "content": "x" * 2_000_000}]}, openai.BadRequestError,
         "messages"),
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
    )
    for wrong, expected, param in wrong_fields:
        try:
            client.chat.completions.create(**({"model": model, "messages": SUM} | wrong))
        except expected as error:
            assert error.param == param, (error.param, param)
            print("refused:", error.body["message"])
        else:
            raise AssertionError(f"{wrong} was accepted")


def main():
    base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    client = openai.OpenAI(base_url=base_url, api_key="not-needed", max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model
    for check in (check_chat, check_choices, check_completions, check_tools, check_errors):
        check(client, model)
    print("all fine")


if __name__ == "__main__":
    main()
