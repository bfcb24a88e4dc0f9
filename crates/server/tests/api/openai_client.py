"""The official client of OpenAI on the chat API: each case is the next script of the fake (openai_client.rs).

Arguments: the address of the API, the token.
"""

import sys

import openai

MESSAGES = [{"role": "user", "content": "Hello"}]


def main(base_url: str, token: str) -> None:
    client = openai.OpenAI(base_url=base_url, api_key=token, timeout=30)

    def ask(**more):
        return client.chat.completions.create(model="llm", messages=MESSAGES, **more)

    assert [model.id for model in client.models.list()] == ["llm"]
    assert client.models.retrieve("llm").owned_by == "outlive"

    whole = ask()
    assert whole.choices[0].message.content == "Hello", whole
    assert (whole.choices[0].finish_reason, whole.usage.total_tokens) == ("length", 6), whole

    chunks = list(ask(stream=True, stream_options={"include_usage": True}, extra_body={"outlive": {"wait_ms": 7}}))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Hello", chunks
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage.total_tokens == 6 and not chunks[-1].choices
    assert {chunk.id for chunk in chunks} == {chunks[0].id}

    # The client's own accumulator, over an answer that is quiet for a while in its middle.
    with client.chat.completions.stream(model="llm", messages=MESSAGES) as events:
        said = [event.delta for event in events if event.type == "content.delta"]
        final = events.get_final_completion()
    assert "".join(said) == "Hello", said
    assert final.choices[0].message.content == "Hello", final

    with client.chat.completions.stream(model="llm", messages=MESSAGES) as events:
        final = events.get_final_completion()
    call = final.choices[0].message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("a", "look", '{"x":1}'), final
    assert final.choices[0].finish_reason == "tool_calls"

    said = ""
    try:
        for chunk in ask(stream=True):
            said += chunk.choices[0].delta.content or ""
        raise AssertionError("a death in mid-stream passed for an end")
    except openai.APIError as death:
        assert said == "Hel", said
        assert death.code == "gpu-out-of-memory", death.body
        assert death.body["diagnostics"]["explain"] == "outlive explain llm", death.body
        assert "GPU ran out of memory" in death.message, death

    raw = client.chat.completions.with_raw_response.create(model="llm", messages=MESSAGES)
    assert raw.headers["outlive-run"] in raw.parse().id

    try:
        ask()
        raise AssertionError("an exception of the handler passed for an answer")
    except openai.InternalServerError as raised:
        assert (raised.status_code, raised.code) == (500, "raised"), raised
        assert raised.request_id

    try:
        client.chat.completions.create(model="gpt-4", messages=MESSAGES)
        raise AssertionError("an unknown model answered")
    except openai.NotFoundError as unknown:
        assert (unknown.code, unknown.param) == ("model_not_found", "model"), unknown
        assert "llm" in unknown.message

    try:
        ask(n=2)
        raise AssertionError("two answers were promised")
    except openai.BadRequestError as wrong:
        assert wrong.param == "n", wrong

    try:
        openai.OpenAI(base_url=base_url, api_key="wrong").models.list()
        raise AssertionError("a wrong token was let in")
    except openai.AuthenticationError as stranger:
        assert stranger.status_code == 401

    print("as with OpenAI")


main(*sys.argv[1:])
