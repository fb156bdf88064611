"""steerlens as a provider of models to Inspect: `inspect eval task.py --model steerlens/demo`.

Inspect alone imports this module, by the entry point in pyproject.toml: it needs inspect_ai, which
is no dependency of steerlens. What it does is in `steerlens.interchange.served`.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import anyio
from inspect_ai.model import (  # pyright: ignore[reportMissingImports]
    ChatCompletionChoice,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    modelapi,
)

from steerlens.interchange.served import Asked, Served, conversation_of, sampling_of
from steerlens.models import load
from steerlens.parsing import few
from steerlens.reading import load_steering
from steerlens.steering import Steering, together
from steerlens.templates import PLAIN, tokenizer_of
from steerlens.types import HookedModel

GATHER = 0.05
"""Seconds in which requests that come together are gathered for one batch."""
OPTIONS = ("steering", "strength", "fitted_on", "model_path", "backend", "device", "dtype")
"""What `-M NAME=VALUE` takes."""
SEEDS = 2**31


@modelapi(name="steerlens")
def steerlens_models() -> type[ModelAPI]:
    """The class of models that Inspect asks for by `steerlens/...`."""
    return SteerlensAPI


class SteerlensAPI(ModelAPI):
    """A model of `steerlens.load`, steered by files.

    The model is what stands behind `steerlens/`, or `-M model_path=`. `-M steering=FILE` (or
    several files, by commas) and `-M strength=2` steer it.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008  as Inspect's own have it
        **options: Any,
    ) -> None:
        super().__init__(
            model_name=model_name,
            base_url=base_url,
            api_key=api_key,
            api_key_vars=[],
            config=config,
        )
        unknown = set(options) - set(OPTIONS)
        if unknown:
            raise ValueError(
                f"-M {few(unknown)} is no option of steerlens. There are: {', '.join(OPTIONS)}."
            )
        chosen = {name: options[name] for name in ("backend", "device", "dtype") if name in options}
        model = load(options.get("model_path", model_name), **chosen)
        if not tokenizer_of(model).chat_template:
            model.tokenizer.chat_template = PLAIN
        steering = _steering(model, options)
        batch_size = config.max_connections or self.max_connections()
        self.served = Served(model, steering, batch_size)

    async def generate(
        self, input: list[Any], tools: list[Any], tool_choice: Any, config: GenerateConfig
    ) -> ModelOutput:
        """One answer, written in one batch with the others that wait."""
        if tools:
            raise ValueError(
                f"A model of steerlens has no tools; the task gives it {len(tools)}. Take them out."
            )
        given = config.model_dump(exclude_none=True)
        seed = secrets.randbelow(SEEDS) if config.seed is None else config.seed
        asked = Asked(conversation_of(_said(input)), sampling_of(given), seed)
        future = self.served.put(asked)
        await anyio.sleep(GATHER)
        answer = await anyio.to_thread.run_sync(self.served.answer, future)
        message = ChatMessageAssistant(
            content=answer.text, model=self.model_name, source="generate"
        )
        return ModelOutput(
            model=self.model_name,
            choices=[ChatCompletionChoice(message=message, stop_reason=answer.ended)],
            usage=ModelUsage(
                input_tokens=answer.n_prompt,
                output_tokens=answer.n_written,
                total_tokens=answer.n_prompt + answer.n_written,
            ),
            time=answer.seconds,
        )

    def max_connections(self) -> int:
        """How many requests are written together, as of Inspect's own local models."""
        return 32


def _steering(model: HookedModel, options: dict[str, Any]) -> Steering | None:
    files = options.get("steering")
    if files is None:
        if "strength" in options or "fitted_on" in options:
            raise ValueError("-M strength and fitted_on are of a steering: give -M steering=FILE.")
        return None
    strength = options.get("strength", 1.0)
    if isinstance(strength, bool) or not isinstance(strength, int | float):
        raise ValueError(f"-M strength is a number; found {strength!r}.")
    listed = [files] if isinstance(files, str) else list(files)
    read = [load_steering(file, model, fitted_on=options.get("fitted_on")) for file in listed]
    return together([one.scaled(strength) for one in read])


def _said(messages: Sequence[Any]) -> list[tuple[str, str]]:
    """Role and text of each message; ValueError for what is no text."""
    said = []
    for message in messages:
        parts = message.content if isinstance(message.content, list) else []
        other = {part.type for part in parts} - {"text", "reasoning"}
        if other:
            raise ValueError(f"A model of steerlens reads text alone; found {few(other)}.")
        said.append((message.role, message.text))
    return said
