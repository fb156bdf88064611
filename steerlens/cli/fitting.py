"""`steerlens fit act-add`, `caa` and `direction`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from steerlens.cli import inputs, output
from steerlens.cli.options import (
    AsJson,
    Backend,
    Contrasts,
    Device,
    Layers,
    Model,
    Out,
)

if TYPE_CHECKING:
    from steerlens.directions.labelled import FoundDirection
    from steerlens.sites import Site


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

    loaded = inputs.load(model, backend, device)
    steering = ActAdd.fit(loaded, positive, negative, layer, c=coefficient)
    steering.save(out)
    output.say({"file": str(out), "method": "ActAdd", "layer": layer}, as_json, f"Wrote {out}")


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
    from steerlens.scopes import scope_named

    positive, negative = read_contrasts(pairs)
    reading = scope_named(read) if read else None
    steered = scope_named(scope)
    loaded = inputs.load(model, backend, device)
    steering = CAA.from_prompts(
        loaded, positive, negative, layer, read=reading, template=inputs.template_of(loaded)
    )
    steering.only(steered).save(out)
    found = {"file": str(out), "method": "CAA", "layer": layer, "pairs": len(positive)}
    output.say(found, as_json, f"Wrote {out} (from {len(positive)} pairs)")


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
    from steerlens.checks import require_choice
    from steerlens.directions.labelled import Kind, contrast_directions
    from steerlens.identity import origin_of
    from steerlens.jsonl import read_contrasts
    from steerlens.methods.clas import CLAS
    from steerlens.scopes import scope_named
    from steerlens.steering import Steering

    require_choice("kind", kind, get_args(Kind))
    positive, negative = read_contrasts(pairs)
    reading, steered = scope_named(read) if read else None, scope_named(scope)
    loaded = inputs.load(model, backend, device)
    inputs.require_folder_of(out)
    found = contrast_directions(
        kind,  # pyright: ignore[reportArgumentType]  (checked above)
        loaded,
        positive,
        negative,
        inputs.layers_of(layers, loaded.cfg.n_layers),
        read=reading,
        template=inputs.template_of(loaded),
        seed=seed,
    )
    placed = tuple((site, CLAS.fixed(one.direction, 1.0)) for site, one in found.items())
    Steering(placed, origin_of(loaded, seed)).only(steered).save(out)
    table, shown = scores_of(found)
    said = f"Wrote {out}: {kind} from {len(positive)} pairs{shown}"
    output.say({"file": str(out), "kind": kind, "directions": table}, as_json, said)


def scores_of(found: "Mapping[Site, FoundDirection]") -> tuple[list[dict[str, Any]], str]:
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
