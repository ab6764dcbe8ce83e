"""What a request of the OpenAI API asks a model, whatever its endpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import UserError

Body = Mapping[str, Any]
PATHS = ("/v1/chat/completions", "/v1/completions")
"""What is answered by a model."""


class RequestError(UserError):
    """A request that no model could answer; its message names a field, never a prompt."""


@dataclass(frozen=True)
class Conversation:
    """A prompt of messages.

    Attributes:
        messages: Each with a `role` and, mostly, a text as `content`.
        tools: What the model may call, as the API has them; None: nothing.
    """

    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Any] | None = None


Prompt = str | tuple[int, ...] | Conversation
"""Text, tokens, or messages that the tokenizer's chat template makes a text of."""


def prompts_of(path: str, body: Body) -> list[Prompt]:
    """Return the prompts of a request, one or more.

    Args:
        path: One of `PATHS`.
        body: Its JSON.

    Raises:
        RequestError: There is none.
    """
    return [_conversation(body)] if path == PATHS[0] else _texts(body.get("prompt"))


def _conversation(body: Body) -> Conversation:
    messages, tools = body.get("messages"), body.get("tools")
    if not isinstance(messages, list) or not messages:
        raise RequestError("expected a list of messages", field="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise RequestError("expected {role, content}", field=f"messages.{place}")
    return Conversation([_plain(message) for message in messages], tools or None)


def _plain(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message whose content is a text, where it was parts of one."""
    content = message.get("content")
    if not isinstance(content, list):
        return message
    parts = [part.get("text") for part in content if isinstance(part, Mapping)]
    return {**message, "content": "\n".join(text for text in parts if isinstance(text, str))}


def _texts(prompt: Any) -> list[Prompt]:  # noqa: ANN401 - JSON is any
    if _is_prompt(prompt):
        return [_prompt(prompt)]
    if isinstance(prompt, list) and prompt and all(map(_is_prompt, prompt)):
        return [_prompt(one) for one in prompt]
    raise RequestError("expected a text, a list of tokens, or a list of these", field="prompt")


def _is_prompt(value: Any) -> bool:  # noqa: ANN401 - JSON is any
    tokens = isinstance(value, list) and bool(value) and all(type(one) is int for one in value)
    return isinstance(value, str) or tokens


def _prompt(value: Any) -> Prompt:  # noqa: ANN401 - JSON is any
    return value if isinstance(value, str) else tuple(value)
