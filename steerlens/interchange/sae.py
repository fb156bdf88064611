"""Features of sparse autoencoders: a direction to steer by, and an activation that can gate.

    a  = relu( w h + b )   where that is above the feature's threshold, 0 elsewhere
    h' = h + s d

d is the feature's row of the decoder, w its column of the encoder, both in the units of the model:
whatever an autoencoder does to activations before it encodes them is folded in.
"""

from dataclasses import dataclass, replace
from math import exp, inf, sqrt
from pathlib import Path

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from steerlens.combinators import When
from steerlens.identity import Imported, Origin, identity_of
from steerlens.interchange.formats import norm_in_words, site_of_name
from steerlens.interchange.sae_files import Normalising, SAEFolder, require_sizes, sae_folder
from steerlens.kinds import require_kinds
from steerlens.methods.caa import CAA
from steerlens.methods.clas import CLAS
from steerlens.parsing import short
from steerlens.precision import wide
from steerlens.saving import require_placeable
from steerlens.scopes import Scope, after_first
from steerlens.sites import Layer, Site, as_site
from steerlens.steering import Steering
from steerlens.steers import steer
from steerlens.types import Direction, Hook, HookedModel, Residual, whole_number

EPSILON = 1e-5
"""What SAELens adds to the standard deviation by which it divides."""
ENCODED = ("standard", "jumprelu", "jump_relu", "topk", "gated")
"""Architectures whose encoder is known here."""
LARGEST = ("topk", "abstopk", "batchtopk", "matryoshka_batchtopk")
"""Those that keep the k largest activations, in SAELens before or after training."""


@steer
class SAEGate:
    """Whether a feature is active on a token: w h + b is above the threshold, and above 0.

    A condition of `When`. Computed in float32 or wider.
    """

    w: Direction
    b: float
    threshold: float = 0.0
    normalising: Normalising = "none"

    def activation(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token"]:
        """The feature's activation on each token, 0 where it is not active."""
        h = self._normalised(wide(h))
        before = h @ self.w.to(h) + self.b
        return torch.where(before > max(self.threshold, 0.0), before, 0.0)

    def above(self, threshold: float) -> "SAEGate":
        """The same gate with another threshold, in units of the activation."""
        require_kinds(SAEGate.above, locals())
        return replace(self, threshold=threshold)

    def _normalised(self, h: Float[Tensor, "*token d_model"]) -> Float[Tensor, "*token d_model"]:
        if self.normalising == "constant_norm_rescale":
            return h * sqrt(h.shape[-1]) / h.norm(dim=-1, keepdim=True)
        if self.normalising == "layer_norm":
            h = h - h.mean(dim=-1, keepdim=True)
            return h / (h.std(dim=-1, keepdim=True) + EPSILON)
        return h

    def __call__(self, activation: Residual, hook: Hook = None) -> Bool[Tensor, "batch pos"]:
        return self.activation(activation) > 0


@dataclass(frozen=True, eq=False)
class SAEFeature:
    """A feature of a sparse autoencoder: `direction` is what one unit of it adds at `site`.

    `encoder` computes its activation on each token, and is None where that is not known. `reason`
    says why `gate` cannot be told, if it cannot. `imported` says what the feature was read from;
    `origin` is known where a model was given.
    """

    index: int
    direction: Direction
    site: Site
    encoder: SAEGate | None
    imported: Imported
    reason: str = ""
    origin: Origin | None = None

    @property
    def gate(self) -> SAEGate:
        """The condition that the feature is active; ValueError where one row cannot tell it."""
        if self.encoder is None or self.reason:
            raise ValueError(f"When feature {self.index} is active is not known: {self.reason}")
        return self.encoder

    @property
    def steering(self) -> Steering:
        """The direction added at the site, once: its strength is an activation to add."""
        return self._placed(CAA(self.direction))

    @property
    def ablation(self) -> Steering:
        """Nothing lies along the direction any more, at any token but the first.

        At every token: `at(feature.site, CLAS.ablation(feature.direction))`.
        """
        return self._placed(CLAS.ablation(self.direction)).only(after_first)

    def clamped(self, activation: float, *, scope: Scope = after_first) -> Steering:
        """The feature set to `activation` on the tokens where it is active: h + (z - a) d.

        Of these on those of `scope`. By default the first token stays: a sink of most models, it
        would be moved by far more than others.
        """
        require_kinds(SAEFeature.clamped, locals())
        gate = self.gate
        if gate.normalising != "none":
            raise ValueError(
                f"Feature {self.index} is of an autoencoder that brings every token to one length, "
                "so an activation is of another size on each. Add its direction instead."
            )
        z = gate.w.new_tensor([activation - gate.b])
        set_to = When(CLAS(-gate.w[None], z, self.direction[None]), gate)
        return self._placed(set_to).only(scope)

    def _placed(self, one: CAA | CLAS | When) -> Steering:
        return Steering(((self.site, one),), self.origin)


def sae_feature(
    path: str | Path,
    index: int,
    *,
    site: Layer | Site | None = None,
    model: HookedModel | None = None,
    mean_norm: float | None = None,
) -> SAEFeature:
    """A feature of the sparse autoencoder in the folder `path`, one row of it read.

    Folders of SAELens, Gemma Scope (1 and 2) and Llama Scope are known. `site` is where it reads
    and writes, which Gemma Scope's folders do not say. With `model` its width and sites are
    checked, and steerings know their origin. `mean_norm` is the mean length of the activations that
    it was trained on, which SAELens folders with "expected_average_only_in" leave out. ValueError
    where a file is damaged, unknown, or leaves one of these open.
    """
    require_kinds(sae_feature, locals())
    sae = _scaled(sae_folder(path), mean_norm, path)
    _require_index(sae, index, path)
    require_sizes(sae, path)
    where = _site_of(sae, None if site is None else as_site(site, model), path)
    row = sae.weights.line(sae.names[0], index, sae.axes[0]).float()
    _require_row(sae, row, path)
    direction = row * _finetuned(sae, index) / sae.scale_out
    length = float(row.norm())
    by_length = sae.by_norm and sae.architecture in LARGEST
    if by_length:  # activations are those times the length, and rows are divided by it
        direction = direction / length
    encoder, reason = _encoder_of(sae, index, length)
    imported = Imported(
        f"SAE feature of {sae.family} ({sae.architecture})",
        Path(path).name or str(path),
        f"feature {index}; {where}",
        norm_in_words([direction]),
        measured="the same place" if sae.hook == sae.hook_out else f"{sae.hook}",
        note=sae.note,
    )
    origin = None if model is None else Origin(identity_of(model), imported=(imported,))
    feature = SAEFeature(int(index), direction, where, encoder, imported, reason, origin)
    if model is not None:
        require_placeable(feature.steering.placed, model)
    return feature


def _require_index(sae: SAEFolder, index: int, path: str | Path) -> None:
    n = sae.weights.shape(sae.names[0])
    if len(n) != 2:
        raise ValueError(
            f"{path} has a decoder of shape {list(n)}, which writes at several layers at once "
            "(a crosscoder). Save the rows that you mean as a dictionary of hook name -> vector."
        )
    number, most = whole_number(index), n[sae.axes[0]]
    if number is None or not 0 <= number < most:
        raise ValueError(f"{path} has the features 0 to {most - 1}; found index {index!r}.")


def _require_row(sae: SAEFolder, row: Float[Tensor, " d"], path: str | Path) -> None:
    if not bool(torch.isfinite(row).all()) or float(row.norm()) == 0:
        raise ValueError(f"{path}: the feature's row of the decoder is zero, NaN or infinite.")
    if sae.hook == sae.hook_out and sae.d_in not in (None, len(row)):
        raise ValueError(f"{path}: d_in is {sae.d_in} and a row has {len(row)} numbers.")


def _site_of(sae: SAEFolder, given: Site | None, path: str | Path) -> Site:
    """Where the feature is written; ValueError where neither the file nor the caller says."""
    if sae.hook_out is None:
        if given is None:
            layer = "N" if sae.layer is None else sae.layer
            raise ValueError(
                f"{path} ({sae.family}) does not say whether it is of the residual stream, of the "
                f"MLP or of attention; the name of its repository does. Give the site: -res is "
                f'site=Site({layer}), -mlp is Site({layer}, "mlp_out"), -att is Site({layer}, '
                f'"z"); on the command line --layers {layer}, and --stream mlp_out or z.'
            )
        if sae.layer is not None and given.layer != sae.layer:
            raise ValueError(f"{path} is of layer {sae.layer} by its name; site={given!r} is not.")
        return given
    named = site_of_name(sae.hook_out)
    if named is None:
        raise ValueError(
            f"{path} writes at {short(sae.hook_out, 80)}, which is no stream that is steered here. "
            "Those are resid_pre, resid_mid, resid_post, attn_out, mlp_out and z of a block."
        )
    if given is not None and given != named:
        raise ValueError(f"{path} is of {named!r} by its own files; site={given!r} is not.")
    return named


def _scaled(sae: SAEFolder, mean_norm: float | None, path: str | Path) -> SAEFolder:
    """The same with the scale of the activations it was trained on."""
    if not sae.mean_norm:
        if mean_norm is not None:
            raise ValueError(f"{path} says itself what scale it has: leave mean_norm= out.")
        return sae
    if mean_norm is None or not 0 < mean_norm < inf:  # NaN too
        raise ValueError(
            f"{path} was trained on activations scaled by their mean length "
            "(expected_average_only_in), and its files do not say what that was. Give it: "
            "mean_norm=capture(model, texts, site).at(site).norm(dim=-1).mean(), of texts like its "
            "own; on the command line --mean-norm."
        )
    scale = sqrt(sae.weights.shape(sae.names[0])[1]) / mean_norm
    note = f"activations times {scale:.4g} are encoded"
    return replace(sae, scale_in=scale, scale_out=scale, note=f"{sae.note}; {note}".lstrip("; "))


def _finetuned(sae: SAEFolder, index: int) -> float:
    """By what older SAELens multiplies activations before they are decoded."""
    if sae.family != "SAELens" or not sae.weights.has("scaling_factor"):
        return 1.0
    return _entry(sae, "scaling_factor", index)


# -- The encoder -----------------------------------------------------------------------------------


def _encoder_of(sae: SAEFolder, index: int, length: float) -> tuple[SAEGate | None, str]:
    """The feature's encoder, and why it cannot say when the feature is active, if it cannot."""
    if sae.hook != sae.hook_out:
        return None, (
            f"it is read at {sae.hook} and written at {sae.hook_out} (a transcoder), and a "
            "condition sees the activations where it steers. Its direction can be used."
        )
    if sae.architecture not in ENCODED:
        return None, (
            f"the encoder of the architecture {short(sae.architecture)} is not known here. Its "
            "direction can be used."
        )
    column = sae.weights.line(sae.names[1], index, sae.axes[1]).float()
    centre = sae.weights.whole(sae.names[2]).float() if sae.centred else torch.zeros_like(column)
    shift = -float(centre @ column)
    if sae.architecture == "gated":
        return _gated(sae, index, column, shift), ""
    b = _entry(sae, sae.names[3], index) + shift
    if sae.architecture != "topk":
        limit = _threshold(sae, index) / (length if sae.by_norm else 1.0)
        return SAEGate(column * sae.scale_in, b, limit, sae.normalising), ""
    times = length if sae.by_norm else 1.0
    reason = (
        "whether it is among the k largest depends on all the others, of which none is read. "
        "Choose a threshold: feature.encoder.above(3.0) is a condition."
    )
    return SAEGate(column * (times * sae.scale_in), times * b, 0.0, sae.normalising), reason


def _gated(sae: SAEFolder, index: int, column: Float[Tensor, " d"], shift: float) -> SAEGate:
    """A gated encoder, whose gate and size share a column, as one with a threshold.

    It is active where w h + b_gate > 0, and then as large as exp(r) w h + b_mag.
    """
    times = exp(_entry(sae, "r_mag", index))
    b = times * shift + _entry(sae, "b_mag", index)
    limit = _entry(sae, "b_mag", index) - times * _entry(sae, "b_gate", index)
    return SAEGate(column * (times * sae.scale_in), b, limit, sae.normalising)


def _threshold(sae: SAEFolder, index: int) -> float:
    if sae.architecture == "standard":
        return 0.0
    if sae.threshold is not None:
        return sae.threshold
    if sae.weights.has("log_threshold"):
        return exp(_entry(sae, "log_threshold", index))
    return _entry(sae, "threshold", index)


def _entry(sae: SAEFolder, name: str, index: int) -> float:
    """The feature's own number in a vector of the file."""
    values = sae.weights.whole(name)
    if values.ndim != 1 or index >= len(values):
        raise ValueError(
            f"The {sae.family} file has {name} of shape {list(values.shape)}, without an entry "
            f"for feature {index}. It is damaged, or something else."
        )
    return float(values[index])
