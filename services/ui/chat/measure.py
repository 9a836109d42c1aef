"""How much of the model's context a conversation fills, and how many of its oldest turns must go for it to fit."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

from client.errors import ApiError, ClientError
from client.inference import Inference, Message, ServedModel
from services.ui.chat.settings import Settings

_FIELD = re.compile(r"^messages(\[\d+\]\.content)?: ")  # of the request; a visitor sees only messages


def measured(
    inference: Inference, settings: Settings, talk: Sequence[Message], models: Sequence[ServedModel]
) -> dict[str, Any]:
    """Tokens of the conversation with what is being written, and the model's context.

    If they do not fit, `drop` is the number of messages of the user to leave out, or None if the last one alone is too long.
    `refused` says why the inference service would not take it, `problem` why the length is unknown.
    """
    model = next((m for m in models if m.id == settings.model), None)
    if model is None or not talk:
        return {}

    def tokens(since: int) -> int:
        return inference.tokenized(settings.prompt(talk[since:], model), model.id).count

    try:
        whole = inference.tokenized(settings.prompt(talk, model), model.id)
        found: dict[str, Any] = {"tokens": whole.count, "context": whole.max_model_len}
        if whole.count >= whole.max_model_len:
            starts = [i for i, message in enumerate(talk) if message["role"] == "user"]
            # Room for an answer is kept, but never more than half of the context, as the inference service does it.
            room = min(int(settings.max_tokens) or whole.max_model_len // 4, whole.max_model_len // 2)
            fit = bisect_left(starts, True, key=lambda start: tokens(start) <= whole.max_model_len - room)
            found["drop"] = fit if fit < len(starts) else None
        return found
    except ApiError as err:
        told = _FIELD.sub("", err.detail or str(err))
        return {"refused" if err.status == 400 else "problem": told}
    except ClientError as err:
        return {"problem": str(err)}
