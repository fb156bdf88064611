"""How a bench loads its model: backend, device, precision, and how conversations are written."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, cast

import steerlens
from steerlens.kinds import require_fields
from steerlens.templates import PLAIN, Own, Place, Template, tokenizer_of, use_template
from steerlens.types import HookedModel

NO_TURN = "none"
"""As a default system text: no system turn at all."""


@dataclass(frozen=True)
class Loading:
    """What `load` and `Template` are given, as plain JSON.

    `default_system` is what a conversation without a system turn gets: None for what the template
    puts there by itself, "none" for no turn, or a text. A model without a chat template gets
    `PLAIN`.
    """

    backend: str = "auto"
    device: str = "cpu"
    dtype: str = "float32"
    default_system: str | None = None
    instruction_in: str = "system"
    template_arguments: Mapping[str, Any] = field(default_factory=dict[str, Any], hash=False)

    def __post_init__(self) -> None:
        require_fields(self)
        _ = self.template  # what is wrong with it is told before a model is loaded

    @property
    def template(self) -> Template:
        """What is chosen of the model's own template."""
        given: dict[str | None, str | Own | None] = {NO_TURN: None, None: Own.DEFAULT}
        return Template(
            system=given.get(self.default_system, self.default_system),
            instruction=cast("Place", self.instruction_in),  # which is checked
            arguments=dict(self.template_arguments),
        )

    def load(self, name: str) -> HookedModel:
        """The model, with a chat template in any case."""
        places: dict[str, Any] = {"backend": self.backend, "dtype": self.dtype}
        model = steerlens.load(name, device=self.device, **places)
        if not tokenizer_of(model).chat_template:
            tokenizer_of(model).chat_template = PLAIN
        use_template(model, self.template)
        return model

    def as_json(self) -> dict[str, Any]:
        """What is not as it would be by itself: nothing for most benches."""
        told = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: value for name, value in told.items() if value != getattr(_BY_ITSELF, name)}


_BY_ITSELF = Loading()
