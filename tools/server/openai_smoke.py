# SPDX-License-Identifier: Apache-2.0
"""Talks to a running `hotset serve` through OpenAI's own client: list, chat, stream, logprobs, stop,
errors, cancel. Ends with "all fine" or with the first thing that is not.

Needs: Python 3.11, openai 2.x.   Run: python tools/server/openai_smoke.py http://127.0.0.1:8000/v1
"""
import sys

import openai


def main():
    base_url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1"
    client = openai.OpenAI(base_url=base_url, api_key="not-needed", max_retries=0)
    model = client.models.list().data[0].id
    assert client.models.retrieve(model).id == model

    messages = [{"role": "user", "content": "Say hello."}]
    whole = client.chat.completions.create(
        model=model, messages=messages, max_tokens=24, temperature=0, seed=1,
        logprobs=True, top_logprobs=3)
    choice = whole.choices[0]
    assert choice.message.role == "assistant"
    assert whole.usage.completion_tokens == len(choice.logprobs.content)
    assert all(len(entry.top_logprobs) == 3 for entry in choice.logprobs.content)
    print("chat:", repr(choice.message.content), choice.finish_reason)

    text, usage = "", None
    for chunk in client.chat.completions.create(
            model=model, messages=messages, max_tokens=24, temperature=0, seed=1, stream=True,
            stream_options={"include_usage": True}):
        for part in chunk.choices:
            text += part.delta.content or ""
        usage = chunk.usage or usage
    assert text == (choice.message.content or ""), (text, choice.message.content)
    assert usage.completion_tokens == whole.usage.completion_tokens

    plain = client.completions.create(model=model, prompt="Once", max_tokens=8, temperature=0)
    print("completion:", repr(plain.choices[0].text))

    stream = client.completions.create(model=model, prompt="Once", max_tokens=1000, stream=True,
                                       extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()

    for wrong, expected in (({"temperature": 9}, openai.BadRequestError),
                            ({"model": "no-such-model"}, openai.NotFoundError)):
        try:
            client.chat.completions.create(**({"model": model, "messages": messages} | wrong))
        except expected as error:
            print("refused:", error.body["message"])
        else:
            raise AssertionError(f"{wrong} was accepted")
    print("all fine")


if __name__ == "__main__":
    main()
