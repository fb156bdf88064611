"""The command line. Heavy imports wait until a command runs, so that `--help` is quick."""

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

if TYPE_CHECKING:
    from steerlens import types
    from steerlens.cli_psr import Wanted
    from steerlens.labelled import FoundDirection
    from steerlens.prompts import Conversation, PromptPair
    from steerlens.steering import AnySteering, Site
    from steerlens.training import Schedule
    from steerlens.types import HookedModel

app = typer.Typer(
    help="Steer language models by prompt or by activation, and see what it does per token.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
fit_app = typer.Typer(help="Fit a steering and write it to a file.", no_args_is_help=True)
app.add_typer(fit_app, name="fit")

Model = Annotated[
    str, typer.Option("--model", "-m", help="'demo', a Hugging Face folder, or a hub name.")
]
Backend = Annotated[str, typer.Option(help="auto, hooked or bridge.")]
Device = Annotated[str, typer.Option(help="cpu, cuda or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="The file to write.")]
Pairs = Annotated[
    Path, typer.Option(help='JSON Lines of {"user": ..., "system": ..., "response": ...}.')
]
CompletedPairs = Annotated[
    Path,
    typer.Option(
        "--pairs",
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}; a line with a response '
        'needs no "system" if --direction is random or a file, or with --learn-directions.',
    ),
]
Contrasts = Annotated[Path, typer.Option(help='JSON Lines of {"positive": ..., "negative": ...}.')]
Layers = Annotated[str, typer.Option(help='Steered layers: "4", "2,4", "2-5" or "all".')]
Seed = Annotated[int, typer.Option(help="Seed of the sampling noise.")]
MaxNewTokens = Annotated[int, typer.Option(help="The most tokens that a completion may have.")]
Temperature = Annotated[float, typer.Option(help="0 is greedy.")]
Equivalent = Annotated[
    list[str] | None, typer.Option(help="The instruction in other words; repeatable.")
]
Neutral = Annotated[
    list[str] | None, typer.Option(help="An instruction that asks for nothing; repeatable.")
]
TINY = 256
"""The widest residual stream that one thread serves best."""
PairLoss = Annotated[
    str,
    typer.Option(
        help="dpo, sft (positive), negative_sft (negative), or options, which reads lines of "
        '{"prompt": ..., "options": {" good": 0.7, " bad": 0.3}} instead.'
    ),
]
Eta = Annotated[float, typer.Option(help="The paper's step size.")]
Steered = Annotated[str, typer.Option(help="Scope that is steered.")]
CompatOption = Annotated[
    str | None, typer.Option("--compat", help='"released": as the authors\' code does.')
]
Together = Annotated[int, typer.Option("--batch-size", help="Examples a pass.")]
LabelledPairs = Annotated[
    Path,
    typer.Option(
        "--pairs",
        help='JSON Lines of {"user": ..., "system": ..., "response": ...}; with a "label" from 0 '
        "to 1 a response is learned from as far as it has the attribute.",
    ),
]
Direction = Annotated[
    Path | None,
    typer.Option(help="A steering file whose vectors at these layers are kept: only gates train."),
]
Checkpoint = Annotated[
    Path | None, typer.Option(help="Written after each epoch; if it is there, the fit goes on.")
]
TopP = Annotated[float, typer.Option(help="Keep the smallest set with more than this probability.")]


def _say(found: dict[str, Any] | list[Any], as_json: bool, text: str) -> None:
    print(json.dumps(found, indent=2, default=str, allow_nan=False) if as_json else text)


def _records(table: Any) -> list[dict[str, Any]]:
    """The rows of a pandas table for JSON, which has no NaN."""
    return json.loads(table.to_json(orient="records") or "[]")


def _load(model: str, backend: str, device: str) -> "HookedModel":
    import torch

    from steerlens.models import load

    loaded = load(model, backend=backend, device=device)  # pyright: ignore[reportArgumentType]  load checks the name
    if loaded.cfg.d_model <= TINY:
        # A second thread gains nothing here, and on a busy machine it waits, spinning.
        torch.set_num_threads(1)
    return loaded


def _template(model: "HookedModel") -> str | None:
    """The model's own chat template, or the plain one where it has none."""
    from steerlens.prompts import PLAIN, tokenizer_of

    return None if tokenizer_of(model).chat_template else PLAIN


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the report.")] = Path(
        "demo-report"
    ),
    seed: Seed = 0,
    backend: Backend = "auto",
) -> None:
    """Steer the embedded model by prompt, ActAdd and CAA; write an HTML report. Offline."""
    import torch

    from analysis.demo import run_demo

    # The model is tiny: a second thread gains nothing, and on a busy machine it waits, spinning.
    torch.set_num_threads(1)
    print(f"The report is at {run_demo(out, seed=seed, backend=backend)}")


@app.command()
def generate(
    prompt: Annotated[str, typer.Option("--prompt", "-p", help="The user turn, or raw text.")],
    model: Model = "demo",
    system: Annotated[str | None, typer.Option(help="Instruction in the system turn.")] = None,
    steering: Annotated[
        list[Path] | None, typer.Option(help="A steering file; repeatable.")
    ] = None,
    strength: Annotated[float, typer.Option(help="0 off, 1 as fitted.")] = 1.0,
    n: Annotated[int, typer.Option("--n", help="Completions to write.")] = 1,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    temperature: Temperature = 1.0,
    top_p: TopP = 1.0,
    raw: Annotated[
        bool, typer.Option(help="Continue the prompt as raw text, no template.")
    ] = False,
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Write completions, unsteered and, given a steering file, steered by it."""
    from steerlens.generation import generate as write
    from steerlens.prompts import Conversation
    from steerlens.saving import load_steering
    from steerlens.steering import AnySteering, scaled, together

    if raw and system is not None:
        raise ValueError("--raw has no turns, so --system has no place. Leave one of them out.")
    loaded = _load(model, backend, device)
    parts = [scaled(load_steering(path, loaded), strength) for path in steering or []]
    acting: AnySteering | None = together(parts) if parts else None
    asked = prompt if raw else Conversation(prompt, system)
    runs = {"unsteered": None} if acting is None else {"unsteered": None, "steered": acting}
    texts = {
        name: write(
            loaded,
            [asked],
            way,
            n=n,
            seed=seed,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_p=top_p,
            template=_template(loaded),
        ).texts
        for name, way in runs.items()
    }
    found = {"model": model, "prompt": prompt, "seed": seed, "strength": strength, **texts}
    shown = [
        f"── {name} {number}\n{text}"
        for name, written in texts.items()
        for number, text in enumerate(written, start=1)
    ]
    _say(found, as_json, "\n".join(shown))


@fit_app.command("act-add")
def fit_act_add(
    positive: Annotated[str, typer.Option(help="The prompt to steer towards.")],
    out: Out,
    layer: Annotated[int, typer.Option(help="The block whose input is read and written.")],
    negative: Annotated[str, typer.Option(help="The prompt to steer away from.")] = "",
    coefficient: Annotated[float, typer.Option(help="The paper's c.")] = 1.0,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """ActAdd: two prompts make a vector for each position."""
    from steerlens.methods.act_add import ActAdd

    loaded = _load(model, backend, device)
    steering = ActAdd.fit(loaded, positive, negative, layer, c=coefficient)
    steering.save(out)
    _say({"file": str(out), "method": "ActAdd", "layer": layer}, as_json, f"Wrote {out}")


@fit_app.command("caa")
def fit_caa(
    pairs: Contrasts,
    out: Out,
    layer: Annotated[int, typer.Option(help="The block whose output is read and written.")],
    read: Annotated[str, typer.Option(help="Scope whose activations are read (their mean).")] = "",
    scope: Annotated[str, typer.Option(help="Scope that is steered.")] = "response",
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """CAA: the mean difference over contrast pairs, added at every position of the scope."""
    from steerlens.jsonl import read_contrasts
    from steerlens.methods.caa import CAA
    from steerlens.positions import scope_named

    positive, negative = read_contrasts(pairs)
    reading = scope_named(read) if read else None
    steered = scope_named(scope)
    loaded = _load(model, backend, device)
    steering = CAA.from_prompts(
        loaded, positive, negative, layer, read=reading, template=_template(loaded)
    )
    steering.only(steered).save(out)
    found = {"file": str(out), "method": "CAA", "layer": layer, "pairs": len(positive)}
    _say(found, as_json, f"Wrote {out} (from {len(positive)} pairs)")


@fit_app.command("psr")
def fit_psr(
    pairs: LabelledPairs,
    out: Out,
    layers: Layers,
    objective: Annotated[
        str, typer.Option(help="MSE, LL, both, or DiM (difference of means: one layer, constant).")
    ] = "MSE",
    ll_weight: Annotated[float, typer.Option(help="Of LL beside MSE, for both.")] = 1.0,
    surface: Annotated[str, typer.Option(help="R (the response) or QR (the user turn too).")] = "R",
    constant: Annotated[bool, typer.Option(help="No gate: the paper's Const.")] = False,
    rank: Annotated[int, typer.Option(help="Gates and directions a layer.")] = 1,
    direction: Direction = None,
    shift: Annotated[
        float, typer.Option(help="The paper's b_m, -0.5 to learn from negatives.")
    ] = 0,
    learn_shift: Annotated[bool, typer.Option(help="Each layer learns its b_m.")] = False,
    regularise: Annotated[
        float, typer.Option(help="Weight of what keeps gates from closing; 0 is none.")
    ] = 0.1,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = 15,
    batch_size: Annotated[int, typer.Option(help="Pairs a step.")] = 8,
    learning_rate: Annotated[
        float | None, typer.Option(help="By default chosen from the number of steps.")
    ] = None,
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """PSR: a gate and a direction for each layer, trained to do what the instruction does.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from steerlens import cli_psr
    from steerlens.training import Schedule

    wanted = cli_psr.Wanted(
        objective, surface, constant, rank, ll_weight, shift, learn_shift, direction, checkpoint,
        regularise,
    )  # fmt: skip
    schedule = Schedule(epochs, batch_size, learning_rate, seed=seed)
    found, text = _fitted_psr(
        (pairs, out, layers), wanted, schedule, (model, backend, device), max_new_tokens, as_json
    )
    _say(found, as_json, text)


def _fitted_psr(
    asked: tuple[Path, Path, str],
    wanted: "Wanted",
    schedule: "Schedule",
    choice: tuple[str, str, str],
    longest: int,
    as_json: bool,
) -> tuple[dict[str, Any], str]:
    """Fit, write the file, and say what came of it; bad files are errors before any work."""
    from steerlens import cli_psr
    from steerlens.jsonl import read_labelled_pairs

    pairs, out, layers = asked
    lines, labels = read_labelled_pairs(pairs)
    if wanted.objective == "DiM":
        cli_psr.require_untrained(wanted, schedule, labels)
    loaded = _load(*choice)
    sites, template = _layers(layers, loaded.cfg.n_layers), _template(loaded)
    _require_folder_of(out)
    cli_psr.frozen(loaded, sites, wanted)
    answered = _answered(loaded, lines, schedule.seed, longest, template)
    if wanted.objective == "DiM":
        return cli_psr.fit_means(out, loaded, answered, sites, wanted, template)
    fitted = cli_psr.fit(
        loaded, answered, labels, sites, wanted, schedule, template, progress=not as_json
    )
    fitted.steering.save(out)
    return cli_psr.told(out, fitted)


@fit_app.command("direction")
def fit_direction(
    pairs: Contrasts,
    out: Out,
    layers: Layers = "all",
    kind: Annotated[str, typer.Option(help="rfm, ridge, logistic, means, pca, random.")] = "rfm",
    read: Annotated[str, typer.Option(help="Scope whose activations are read (their mean).")] = "",
    scope: Annotated[str, typer.Option(help="Scope that is steered.")] = "everywhere",
    seed: Annotated[int, typer.Option(help="Seed of the order of the pairs.")] = 0,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """A unit direction at each layer that tells the positive from the negative prompts.

    The file is a steering that adds them with strength 1; `fit clas --direction` reads it too.
    """
    from steerlens.jsonl import read_contrasts
    from steerlens.labelled import Kind, contrast_directions
    from steerlens.methods.clas import CLAS
    from steerlens.models import require_choice
    from steerlens.positions import scope_named
    from steerlens.saving import origin_of
    from steerlens.steering import Steering

    require_choice("kind", kind, get_args(Kind))
    positive, negative = read_contrasts(pairs)
    reading, steered = scope_named(read) if read else None, scope_named(scope)
    loaded = _load(model, backend, device)
    _require_folder_of(out)
    found = contrast_directions(
        kind,  # pyright: ignore[reportArgumentType]  (checked above)
        loaded,
        positive,
        negative,
        _layers(layers, loaded.cfg.n_layers),
        read=reading,
        template=_template(loaded),
        seed=seed,
    )
    placed = tuple((site, CLAS.fixed(one.direction, 1.0)) for site, one in found.items())
    Steering(placed, origin_of(loaded, seed)).only(steered).save(out)
    table, shown = _scores_of(found)
    said = f"Wrote {out}: {kind} from {len(positive)} pairs{shown}"
    _say({"file": str(out), "kind": kind, "directions": table}, as_json, said)


@fit_app.command("clas")
def fit_clas(
    pairs: CompletedPairs,
    out: Out,
    validation: Annotated[
        Path | None, typer.Option(help="Pairs that choose the step; default: the last half.")
    ] = None,
    direction: Annotated[
        str,
        typer.Option(
            help="rfm, ridge, logistic, means, pca, random (from the prompts with and without the "
            "instruction), or a file of `fit direction`."
        ),
    ] = "rfm",
    layers: Layers = "all",
    kind: Annotated[
        str, typer.Option(help="contextual; layerwise or single: the same at all tokens.")
    ] = "contextual",
    learn_directions: Annotated[
        bool, typer.Option(help="Learn the directions too, from random ones.")
    ] = False,
    steps: Annotated[int, typer.Option(help="Updates, each on all pairs.")] = 8,
    limit: Annotated[float | None, typer.Option(help="The most that |alpha| may be.")] = None,
    scope: Annotated[str, typer.Option(help="Scope that is steered.")] = "everywhere",
    seed: Annotated[
        int,
        typer.Option(help="Seed of the order of the pairs, random directions and sampling noise."),
    ] = 0,
    max_new_tokens: MaxNewTokens = 64,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """CLAS: a strength for each token, read off its activation, from about ten completions.

    A line of the pairs file without a response is answered by the prompted model first; the
    instruction is for that, and for directions, and otherwise not needed.
    """
    from steerlens.jsonl import read_prompt_pairs
    from steerlens.methods.clas import CLAS
    from steerlens.methods.clas import Kind as Strengths
    from steerlens.models import require_choice
    from steerlens.positions import scope_named

    require_choice("kind", kind, get_args(Strengths))
    steered = scope_named(scope)
    asked = read_prompt_pairs(pairs, system_optional=True)
    held = [] if validation is None else read_prompt_pairs(validation, system_optional=True)
    if len(asked) + len(held) < 2:
        raise ValueError("One pair cannot be fitted and validated on. Give more, or --validation.")
    fitted = len(asked) if held else -(-len(asked) // 2)
    if not learn_directions:
        _require_instructions(pairs, asked[:fitted], direction)
    loaded = _load(model, backend, device)
    _require_folder_of(out)
    template = _template(loaded)
    directions, shown = _directions(
        loaded, direction, asked[:fitted], layers, seed, template, learn_directions
    )
    answered = _answered(loaded, [*asked, *held], seed, max_new_tokens, template)
    fit = CLAS.fit(
        loaded,
        answered[:fitted],
        answered[fitted:],
        directions,
        kind=kind,  # pyright: ignore[reportArgumentType]  (checked above)
        learn_directions=learn_directions,
        steps=steps,
        limit=limit,
        scope=steered,
        template=template,
        seed=seed,
        progress=not as_json,
    )
    fit.steering.save(out)
    kept = fit.trained.best_epoch
    first, best = (fit.trained.rows[step]["validation_loss"] for step in (0, kept))
    found = {"file": str(out), "kind": kind, "validation_loss": [first, best], "step": kept}
    said = (
        f"Wrote {out}: {kind}, {fitted} pairs, validation loss {first:.3g} -> {best:.3g} at step "
        f"{kept} of {steps}{shown}"
    )
    if kept == 0:
        said += "\nNo step was better than the model itself, so this steering does nothing."
    _say(found, as_json, said)


def _require_instructions(
    path: Path, asked: "Sequence[PromptPair | Conversation]", source: str
) -> None:
    """Raise ValueError where directions are to come from instructions that are not there."""
    from steerlens.jsonl import line_numbers
    from steerlens.labelled import Kind
    from steerlens.prompts import PromptPair

    if source == "random" or source not in get_args(Kind):
        return
    for number, line in zip(line_numbers(path), asked, strict=False):
        if isinstance(line, PromptPair) and line.plain == line.prompted:
            raise ValueError(
                f'{path}, line {number}: without an instruction ("system") --direction {source} '
                "has no prompts to tell apart. Give each line one, or take --direction random, "
                "--learn-directions, or --direction FILE (of `steerlens fit direction`)."
            )


def _directions(
    model: "HookedModel",
    source: str,
    asked: "Sequence[PromptPair | Conversation]",
    layers: str,
    seed: int,
    template: str | None,
    learnt: bool,
) -> "tuple[dict[Site, types.Direction], str]":
    """The directions of a file or of the lines' own prompts, and what to say about them."""
    from steerlens.cli_psr import directions
    from steerlens.labelled import Kind, contrast_directions
    from steerlens.prompts import Conversation, PromptPair

    places = _layers(layers, model.cfg.n_layers)
    if source not in get_args(Kind):
        if learnt:
            raise ValueError(
                f"--learn-directions begins with random ones and would ignore {source}. Leave one "
                "of them out."
            )
        held = directions(Path(source), model, places)
        several = [
            f"{len(vectors)} at {place}" for place, vectors in held.items() if len(vectors) > 1
        ]
        if several:
            raise ValueError(
                f"CLAS has one direction a layer; {source} holds {', '.join(several)}."
            )
        return {place: vectors[0] for place, vectors in held.items()}, ""
    found = contrast_directions(
        "random" if learnt else source,  # pyright: ignore[reportArgumentType]  (checked above)
        model,
        [line.prompted if isinstance(line, PromptPair) else line for line in asked],
        [line.plain if isinstance(line, PromptPair) else Conversation(line.user) for line in asked],
        places,
        template=template,
        seed=seed,
    )
    shown = "" if learnt or source == "random" else _scores_of(found)[1]
    return {place: one.direction for place, one in found.items()}, shown


def _scores_of(found: "Mapping[Site, FoundDirection]") -> tuple[list[dict[str, Any]], str]:
    """How well each direction tells held-out prompts apart, as rows and as lines."""
    table, lines = [], []
    for site, one in found.items():
        scored, pairs = one.auroc == one.auroc, one.held // 2  # nan where none was held out
        score = f"held-out AUROC {one.auroc:.2f} (on {pairs} pair{'s' * (pairs != 1)})"
        lines.append(f"\n{site}: {score if scored else 'not scored, no pair was held out'}")
        table.append(
            {
                "site": str(site),
                "auroc": one.auroc if scored else None,
                "correlation": one.correlation if scored else None,
                "held_out_pairs": pairs,
            }
        )
    return table, "".join(lines)


@fit_app.command("cold-kernel")
def fit_cold_kernel(
    pairs: Contrasts,
    out: Out,
    layers: Layers,
    loss: PairLoss = "dpo",
    kernel: Annotated[str, typer.Option(help="unit, dot, cosine or rbf.")] = "unit",
    width: Annotated[
        float | None, typer.Option(help="Of rbf; default: the median distance of the examples.")
    ] = None,
    eta: Eta = 1.0,
    scope: Steered = "prompt",
    compat: CompatOption = None,
    batch_size: Together = 8,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """COLD-Kernel: the gradients of a loss for the activations, weighted by a kernel.

    What is told at the end is how far it moves the activations of its own examples, over their
    length: some tenths are a usual strength, and `--eta` (or `generate --strength`) sets it.
    """
    options = {"kernel": kernel, "width": width, "eta": eta, "compat": compat}
    options["batch_size"] = batch_size
    _fit_cold(
        "COLD-Kernel", pairs, out, layers, loss, scope, (model, backend, device), as_json, options
    )


@fit_app.command("cold-fd")
def fit_cold_fd(
    pairs: Contrasts,
    out: Out,
    layers: Layers,
    loss: PairLoss = "dpo",
    mode: Annotated[str, typer.Option(help="jvp (the derivative) or fd (a difference).")] = "jvp",
    eps: Annotated[float | None, typer.Option(help="The step of fd; default: automatic.")] = None,
    central: Annotated[bool, typer.Option(help="fd steps to both sides.")] = False,
    eta: Eta = 1.0,
    scope: Steered = "prompt",
    compat: CompatOption = None,
    batch_size: Together = 8,
    model: Model = "demo",
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """COLD-FD: what one gradient step on the pairs would do to the activations.

    The file holds the mean gradient, as many numbers as the model has up to the last layer. What is
    told at the end is how far it moves the activations of its own examples, over their length.
    """
    options = {"mode": mode, "eps": eps, "central": central, "eta": eta, "compat": compat}
    options["batch_size"] = batch_size
    _fit_cold(
        "COLD-FD", pairs, out, layers, loss, scope, (model, backend, device), as_json, options
    )


def _fit_cold(
    method: str,
    pairs: Path,
    out: Path,
    layers: str,
    loss: str,
    scope: str,
    choice: tuple[str, str, str],
    as_json: bool,
    options: dict[str, Any],
) -> None:
    from analysis.coefficients import strengths
    from steerlens import cli_cold
    from steerlens.positions import scope_named

    asked, steered = cli_cold.read(method, pairs, loss, options), scope_named(scope)
    _require_folder_of(out)
    loaded = _load(*choice)
    template = _template(loaded)
    steering = asked.fit(loaded, _layers(layers, loaded.cfg.n_layers), steered, template)
    steering.save(out)
    shown = strengths(loaded, asked.shown, {method: steering}, template=template)
    moved = shown.loc[shown["norm"] > 0, "relative_norm"]
    found, said = asked.told(float(moved.mean()) if len(moved) else 0.0)
    _say({"file": str(out), **found}, as_json, f"Wrote {out}: {said}")


def _layers(text: str, n_layers: int) -> list[int]:
    """Layers written as numbers and ranges, or "all"."""
    if text == "all":
        return list(range(n_layers))
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f'--layers is like "4", "2,4", "2-5" or "all"; found {text!r}.')
        found += range(int(first), int(last if dash else first) + 1)
    return found


def _require_folder_of(out: Path) -> None:
    if not out.absolute().parent.is_dir():
        raise ValueError(f"Cannot write {out}: its folder does not exist. Make it first.")


@app.command()
def compare(
    pairs: Pairs,
    steering: Annotated[list[Path], typer.Option(help="A steering file; repeatable.")],
    out: Out,
    model: Model = "demo",
    equivalent: Equivalent = None,
    neutral: Neutral = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """Prompt steering against steering files, per token and per layer, as an HTML report.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from analysis.comparison import compare as run
    from analysis.comparison import made, report

    loaded, answered, steerings = _measurable(
        pairs, steering, out, (model, backend, device), seed, max_new_tokens
    )
    comparison = run(
        loaded,
        answered,
        steerings,
        equivalents=equivalent or (),
        neutral=neutral or (),
        seed=seed,
        template=_template(loaded),
    )
    page = report(
        comparison,
        made(loaded, comparison, "steerlens compare"),
        title="Prompt steering and activation steering, compared",
        intro=f"{pairs.name}: {len(answered)} pairs on the model {model}.",
    )
    page.write(out)
    faith, shift = comparison.faithfulness, comparison.logit_shift
    still = shift.loc[~shift["moved"], "method"].tolist()
    if still:
        warnings.warn(f"These moved no logit: {', '.join(still)}.", stacklevel=1)
    found = {
        "report": str(out),
        "faithfulness": _records(faith),
        "logit_shift": _records(shift),
    }
    _say(found, as_json, f"The report is at {out}")


def _measurable(
    pairs: Path,
    steering: Sequence[Path],
    out: Path,
    choice: tuple[str, str, str],
    seed: int,
    longest: int,
) -> "tuple[HookedModel, list[PromptPair], dict[str, AnySteering]]":
    """The model, every pair answered, and the steerings; bad files are errors before any work."""
    from steerlens.jsonl import read_prompt_pairs

    asked = read_prompt_pairs(pairs)
    loaded = _load(*choice)
    _require_folder_of(out)
    steerings = _steerings(steering, loaded)
    return loaded, _answered(loaded, asked, seed, longest, _template(loaded)), steerings


def _answered(
    model: "HookedModel", asked: Sequence[Any], seed: int, longest: int, template: str | None
) -> "list[PromptPair]":
    """Every line as a pair, in order; the model answers those that came without a response."""
    from steerlens.generation import prompted_pairs
    from steerlens.prompts import Conversation

    pairs = []
    for number, line in enumerate(asked):
        if not isinstance(line, Conversation):
            pairs.append(line)
            continue
        pairs += prompted_pairs(
            model,
            [line.user],
            line.system or "",
            seed=seed + number,
            max_new_tokens=longest,
            template=template,
        )
    return pairs


@app.command()
def faithfulness(
    pairs: Pairs,
    out: Out,
    steering: Annotated[
        list[Path] | None, typer.Option(help="A steering file; repeatable.")
    ] = None,
    model: Model = "demo",
    equivalent: Equivalent = None,
    neutral: Neutral = None,
    seed: Seed = 0,
    max_new_tokens: MaxNewTokens = 64,
    backend: Backend = "auto",
    device: Device = "cpu",
    as_json: AsJson = False,
) -> None:
    """How unevenly the prompt pushes the tokens, and which steering files are faithful to it.

    A line of the pairs file without a response is answered by the prompted model first.
    """
    from analysis.comparison import made
    from analysis.faithfulness_report import report, study

    loaded, answered, steerings = _measurable(
        pairs, steering or [], out, (model, backend, device), seed, max_new_tokens
    )
    found = study(
        loaded,
        answered,
        steerings,
        equivalents=equivalent or (),
        neutral=neutral or (),
        seed=seed,
        template=_template(loaded),
    )
    page = report(
        found,
        made(loaded, found, "steerlens faithfulness"),
        "What the prompt does, and who does the same",
        f"{pairs.name}: {len(answered)} pairs on the model {model}.",
    )
    page.write(out)
    tables = {
        "dispersion": found.dispersion,
        "rank_share": found.rank_share,
        "decodability": found.decodability,
        "faithfulness": found.faithfulness,
    }
    records = {name: _records(table) for name, table in tables.items() if table is not None}
    _say({"report": str(out), **records}, as_json, f"The report is at {out}")


def _steerings(paths: Sequence[Path], model: "HookedModel") -> "dict[str, AnySteering]":
    """Each file's steering under the file's name."""
    from steerlens.saving import load_steering

    names = [path.stem for path in paths]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"Two steering files are called {', '.join(twice)}. Rename one.")
    return {path.stem: load_steering(path, model) for path in paths}


@app.command()
def models(
    hub: Annotated[str, typer.Option(help="List hub names that contain this.")] = "",
    as_json: AsJson = False,
) -> None:
    """The models that can be loaded: the embedded one, and the hub names TransformerLens knows."""
    from steerlens.models import DEMO, has_hooked_transformer, hub_names

    size = sum(file.stat().st_size for file in DEMO.glob("*")) / 1e6
    backends = ["hooked", "bridge"] if has_hooked_transformer() else ["bridge"]
    names = [name for name in hub_names() if hub and hub.lower() in name.lower()]
    found = {"embedded": {"demo": str(DEMO)}, "backends": backends, "hub": names}
    text = [
        f"demo        the embedded demonstration model ({size:.0f} MB, offline)",
        "FOLDER      any local Hugging Face folder (config.json, *.safetensors, tokenizer.json)",
        f"OWNER/NAME  a hub name; TransformerLens knows {len(hub_names())} (--hub TEXT searches)",
        f"Backends here: {', '.join(backends)}",
    ]
    _say(found, as_json, "\n".join([*text, *names]))


@app.command()
def info(
    file: Annotated[Path, typer.Argument(help="A steering file.")], as_json: AsJson = False
) -> None:
    """What a steering file holds and which model it is for."""
    from steerlens.saving import read_file

    header, tensors = read_file(file)
    origin = header["origin"] or {}
    model = origin.get("model", {})
    shapes = {name: [str(t.dtype), *t.shape] for name, t in tensors.items()}
    found = {"file": str(file), **header, "tensors": shapes}
    lines = [
        f"{file}: format {header['format']}",
        f"model       {model.get('name') or 'not recorded'} "
        f"({model.get('n_layers', '?')} layers, d_model {model.get('d_model', '?')})",
        f"fingerprint {model.get('fingerprint', 'not recorded')}",
        f"processing  {model.get('processing', 'not recorded')}",
        f"data        {origin.get('data') or 'not recorded'}, seed {origin.get('seed')}",
        f"made with   {', '.join(f'{k} {v}' for k, v in header['versions'].items())}",
        *(f"{line}" for line in _outline(header["steering"])),
    ]
    _say(found, as_json, "\n".join(lines))


def _outline(tree: Any, depth: int = 0, name: str = "") -> list[str]:
    """The classes and values of a saved steering, one a line, indented."""
    head = "  " * depth + (f"{name}: " if name else "")
    if isinstance(tree, dict) and "class" in tree:
        inner = [_outline(value, depth + 1, key) for key, value in tree["fields"].items()]
        return [head + tree["class"], *(line for lines in inner for line in lines)]
    if isinstance(tree, dict) and "tuple" in tree:
        inner = [_outline(value, depth + 1) for value in tree["tuple"]]
        return [*([head] if head.strip() else []), *(line for lines in inner for line in lines)]
    return [head + str(tree.get("tensor") if isinstance(tree, dict) else tree)]


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """What works on this machine and what does not."""
    from dataclasses import asdict

    from steerlens.doctor import examine

    checks = examine()
    lines = [f"{'✓' if check.works else '✗'} {check.name}: {check.seen}" for check in checks]
    _say([asdict(check) for check in checks], as_json, "\n".join(lines))
    if not all(check.works for check in checks):
        raise typer.Exit(1)


def _warn(message: Any, category: Any, filename: str, lineno: int, *_: Any) -> None:
    print(f"warning: {message}", file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; user errors are one line on stderr and exit code 2."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    warnings.showwarning = _warn
    try:
        app(arguments, prog_name="steerlens")
    except (ValueError, TypeError, OSError) as error:
        if debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
