"""`steerlens import`: vectors of other tools, and features of SAEs, as steerings of ours."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from steerlens.cli import inputs, output
from steerlens.cli.grouped import grouped
from steerlens.cli.options import Out, RunOptions, Steered

if TYPE_CHECKING:
    from steerlens.sites import Site
    from steerlens.steering import Steering
    from steerlens.types import HookedModel


@dataclass(frozen=True)
class Understood:
    """What the file leaves open."""

    layers: Annotated[
        str | None,
        typer.Option(
            help='The blocks that are steered: "4", "2,4", "2-5", "-1" (the last) or "all"; '
            "needed where the file does not say, or has a row for each."
        ),
    ] = None
    stream: Annotated[
        str, typer.Option(help="resid_pre, resid_mid, resid_post, attn_out, mlp_out or z.")
    ] = "resid_post"
    convention: Annotated[
        str | None,
        typer.Option(
            help="What a number k in the file means: block, the output of block k, or "
            "hidden_states, that of block k - 1 (0 is the embedding)."
        ),
    ] = None
    concept: Annotated[int | None, typer.Option(help="The row of AxBench's weights.")] = None
    feature: Annotated[int | None, typer.Option(help="The number of an SAE's feature.")] = None
    mean_norm: Annotated[
        float | None,
        typer.Option(help="Mean length of the activations an SAE was trained on, if asked for."),
    ] = None

    def __post_init__(self) -> None:
        of_vectors = {"--convention": self.convention, "--concept": self.concept}
        given = [name for name, value in of_vectors.items() if value is not None]
        if self.feature is not None and given:
            raise ValueError(
                f"--feature is of an SAE, and {' and '.join(given)} is not. Leave one out."
            )
        if self.feature is None and self.mean_norm is not None:
            raise ValueError(
                "--mean-norm is for the features of an SAE. Give --feature, or leave it out."
            )

    def sites(self, model: "HookedModel") -> "list[Site] | None":
        """The sites that were given, if any were."""
        from steerlens.sites import Site

        if self.layers is None:
            return None
        numbers = inputs.layers_of(self.layers, model.cfg.n_layers)
        return [Site(layer, self.stream) for layer in numbers]  # pyright: ignore[reportArgumentType]  it checks

    def read(self, file: Path, model: "HookedModel") -> "Steering":
        """The steering of a file, or of a folder with an SAE."""
        from steerlens.interchange.sae import sae_feature
        from steerlens.reading import is_foreign, load_steering

        sites = self.sites(model)
        if self.feature is not None:
            if sites is not None and len(sites) != 1:
                raise ValueError(f"A feature has one site; --layers names {len(sites)}.")
            site, scale = None if sites is None else sites[0], self.mean_norm
            found = sae_feature(file, self.feature, site=site, model=model, mean_norm=scale)
            return found.steering
        if not is_foreign(file):
            raise ValueError(
                f"{file} is no file of another tool that is known. A steering of steerlens needs "
                "no import: give it to --steering; `steerlens info` tells what a file holds."
            )
        how, row = self.convention, self.concept
        return load_steering(file, model, sites=sites, convention=how, concept=row)


@grouped
def import_vectors(
    *,
    file: Annotated[
        Path, typer.Argument(help="The vectors; or the folder of a sparse autoencoder.")
    ],
    out: Out,
    understood: Understood,
    strength: Annotated[float, typer.Option(help="Times what the file holds.")] = 1.0,
    scope: Steered = "everywhere",
    run: RunOptions,
) -> None:
    """Write vectors of another tool, or an SAE's feature, as a steering file for --model.

    Read are llama.cpp's GGUF, CAA, persona vectors, AxBench, lm-eval and others; see
    docs/interchange.md. The file records how its numbers were understood, and `info` shows it.
    """
    from steerlens.scopes import scope_named

    steered = scope_named(scope)
    if not file.exists():
        raise FileNotFoundError(f"There is no {file}. Give the path of a file or folder.")
    steering = understood.read(file, inputs.load(*run.place))
    steering = (steering if strength == 1 else steering.scaled(strength)).only(steered)
    assert steering.origin is not None
    (part,) = (asdict(one) for one in steering.origin.imported)
    where = [str(site) for site in steering.sites]
    content = {"file": str(out), "sites": where, "imported": part}
    text = "\n".join([f"Wrote {out}: {', '.join(where)}", *told(part)])
    shown = output.told(content, run.as_json, text)
    steering.save(out)
    output.show(shown)


NAMES = {"format": "imported", "source": "from", "index": "numbers", "norm": "norm"}
NAMES |= {"measured": "measured at", "note": "note"}


def told(part: Mapping[str, str]) -> list[str]:
    """What a steering was imported from, as lines."""
    return [f"{name:<11} {part[key]}" for key, name in NAMES.items() if part[key]]


def described(file: Path) -> tuple[dict[str, Any], list[str]]:
    """Another tool's file as it was recognised, for `--json` and as lines."""
    from steerlens.interchange.formats import direction_of, norm_of, recognised
    from steerlens.interchange.opening import opened

    if file.is_dir():
        return _described_sae(file)
    found = recognised(opened(file))
    rows = {
        "vector" if key is None else str(key): direction_of(one)
        for key, one in found.steers.items()
    }
    width = max(map(len, rows.values()))
    about = {
        "format": found.format,
        "convention": found.convention,
        "norm": norm_of(found),
        "measured": found.measured,
        "note": found.note,
        "d_model": width,
        "vectors": {key: float(vector.norm()) for key, vector in rows.items()},
    }
    lines = [
        f"{file}: {found.format}, {len(rows)} of length {width}",
        f"numbers     {found.index}",
        f"norm        {about['norm']}",
        f"measured at {found.measured}",
        *([f"note        {found.note}"] if found.note else []),
        *(f"{key}: norm {norm:.4g}" for key, norm in about["vectors"].items()),
    ]
    return {"file": str(file), **about}, lines


def _described_sae(folder: Path) -> tuple[dict[str, Any], list[str]]:
    from steerlens.interchange.sae_files import sae_folder

    sae = sae_folder(folder)
    shape = sae.weights.shape(sae.names[0])
    about = {
        "format": sae.family,
        "architecture": sae.architecture,
        "reads": sae.hook,
        "writes": sae.hook_out,
        "layer": sae.layer,
        "features": shape[sae.axes[0]],
        "note": sae.note,
    }
    names = ("architecture", "reads", "writes", "layer", "features", "note")
    told = {name: about[name] for name in names if about[name] not in (None, "")}
    first = f"{folder}: sparse autoencoder of {sae.family}"
    lines = [first, *(f"{name:<12} {value}" for name, value in told.items())]
    return {"file": str(folder), **about}, lines
