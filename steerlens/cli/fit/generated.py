"""`steerlens fit NAME` for every method that has no command of its own, made from its `fit`.

Of `NAME.fit(model, data, sites, *, ...)` the annotation of the data says what a line of `--pairs`
is, `sites` is `--layers`, and every keyword that fits on a command line is an option.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import Any, get_args, get_origin

from steerlens.cli import inputs
from steerlens.cli.data import read_contrasts, read_prompt_pairs
from steerlens.cli.fit.keywords import Keyword, keywords_of
from steerlens.cli.fit.outcome import course, finish, validation_losses
from steerlens.cli.grouped import grouped, option
from steerlens.cli.options import (
    Contrasts,
    Layers,
    MaxNewTokens,
    Out,
    Pairs,
    RunOptions,
    Steered,
    Strength,
)
from steerlens.exports import title_of
from steerlens.prompts import PromptPair
from steerlens.scopes import scope_named
from steerlens.training.fit import Fit
from steerlens.types import HookedModel

ANSWERED = "A line of the pairs file without a response is answered by the prompted model first."


@dataclass(frozen=True)
class Generated:
    """A method, and the keywords of its `fit` that its command offers as options."""

    method: Any
    contrasts: bool
    keywords: tuple[Keyword, ...]

    @classmethod
    def of(cls, method: Any) -> "Generated":
        """What the signature of `method.fit` says; TypeError if no command can be made of it."""
        return cls(method, takes_contrasts(method), tuple(keywords_of(method.fit)))

    @property
    def has_scope(self) -> bool:
        """Whether the fit itself asks for the scope that is steered."""
        return any(keyword.name == "scope" for keyword in self.keywords)

    def options(self) -> list[Parameter]:
        """The options of the command, in the order of its `--help`."""
        scope = [] if self.has_scope else [option("scope", Steered, "everywhere")]
        longest = [] if self.contrasts else [option("max_new_tokens", MaxNewTokens, 64)]
        return [
            option("pairs", Contrasts if self.contrasts else Pairs),
            option("out", Out),
            option("layers", Layers),
            *(item for keyword in self.keywords for item in keyword.options),
            *scope,
            *longest,
            option("strength", Strength),
            option("run", RunOptions),
        ]

    def run(self, given: dict[str, Any]) -> None:
        """Fit, write the file, tell the outcome; bad options and files are errors before that."""
        run: RunOptions = given["run"]
        out: Path = given["out"]
        values = {keyword.name: keyword.value(given) for keyword in self.keywords}
        scope = None if self.has_scope else scope_named(given["scope"])
        data: Any = (read_contrasts if self.contrasts else read_prompt_pairs)(given["pairs"])
        model = inputs.load(*run.place)
        sites = inputs.layers_of(given["layers"], model.cfg.n_layers)
        data = data.sides(model) if self.contrasts else data
        if not self.contrasts:
            data, values = self._answered(model, data, values, given)
        if "progress" in inspect.signature(self.method.fit).parameters:
            values["progress"] = not run.as_json
        fit = self.method.fit(model, data, sites, **values)
        placed = fit.steering if scope is None else fit.steering.only(scope)
        texts, strength = data[-1] if self.contrasts else data, given["strength"]
        placed, found, shown = strength.of_fit(model, placed, texts, out, given.get("seed", 0))
        content, text = self._outcome(fit, sites, len(texts))
        content = {"file": str(out), **content, **found}
        finish(placed, out, content, run.as_json, f"Wrote {out}{shown}: {text}")

    def _answered(
        self, model: HookedModel, data: Sequence[Any], values: dict[str, Any], given: dict[str, Any]
    ) -> tuple[list[PromptPair], dict[str, Any]]:
        """The pairs and the values with a response to every line, which the model may write."""
        seed, longest = given.get("seed", 0), given["max_new_tokens"]
        files = [keyword.name for keyword in self.keywords if keyword.of_pairs]
        require = getattr(self.method, "require", None)
        if require is not None:
            require(
                model,
                **{
                    name: values[name]
                    for name in inspect.signature(require).parameters
                    if name in values
                },
            )
        lines = [line for name in files for line in values[name]]
        inputs.require_room(model, [*data, *lines], longest)
        written = {name: inputs.answered(model, values[name], seed, longest) for name in files}
        return inputs.answered(model, data, seed, longest), values | written

    def _outcome(
        self, fit: Fit[Any], layers: Sequence[int], n_pairs: int
    ) -> tuple[dict[str, Any], str]:
        """What there is to tell of a fit, for `--json` and for reading."""
        name = fit.name or self.method.__name__
        content = {"method": name, "layers": list(layers), "pairs": n_pairs}
        text = f"{name} from {n_pairs} pair{'s' * (n_pairs != 1)}"
        if fit.trained is None:
            return content, text
        losses, kept = validation_losses(fit.trained)
        trained = {"validation_loss": losses, "epoch": kept}
        return content | trained, f"{text}, {course(losses, kept, 'the first parameters')}"


def takes_contrasts(method: Any) -> bool:
    """Whether the data are (positive, negative) prompts rather than pairs with an instruction."""
    annotation = list(inspect.signature(method.fit, eval_str=True).parameters.values())[
        1
    ].annotation
    if get_origin(annotation) is tuple and len(get_args(annotation)) == 2:
        return True
    if get_args(annotation) == (PromptPair,):
        return False
    raise TypeError(
        f"{method.__name__}.fit takes neither (positive, negative) prompts, tuple[Prompts, "
        f"Prompts], nor Sequence[PromptPair], but {annotation}. Annotate its data as one of these, "
        "or write its command by hand, as steerlens/cli/fit/cold.py does."
    )


def command_of(method: Any) -> Callable[..., None]:
    """The command of a method, as typer can read it."""
    generated = Generated.of(method)

    def command(**given: Any) -> None:
        generated.run(given)

    title = title_of(method.__module__)
    answered = "" if generated.contrasts else ANSWERED
    options = generated.options()
    command.__doc__ = "\n\n".join([title, inspect.getdoc(method.fit) or "", answered]).strip()
    command.__annotations__ = {item.name: item.annotation for item in options}
    command.__signature__ = Signature(options)  # pyright: ignore[reportFunctionMemberAccess]
    return grouped(command)
