"""Vectors and autoencoders that other packages made and saved, by their own code.

`make test-consumers` installs the versions that constraints/consumers.txt pins. Where one is not
installed, its tests are skipped. test_foreign.py and test_sae_features.py build the same formats
without the packages. That a difference is seen at all is shown one block off.
"""

import importlib
import warnings
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import steerlens as sl
from steerlens.models import DEMO

NEAR, FAR = 2e-4, 0.1
STRENGTHS = (-2.0, 1.0, 4.0)
WORDS = "I went to see the film last night, and the acting was better than the story."
THINGS = ("film", "book", "song", "house")
SIDES = [(f"I loved the {thing}.", f"I hated the {thing}.") for thing in THINGS]


def needed(name: str) -> Any:
    """A package, or a skipped test that says how to get it."""
    # repeng 0.4 names a type that NumPy 2 does not have, in an annotation.
    np.__dict__.setdefault("float_", np.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what they use of others
            return importlib.import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} (in constraints/consumers.txt) is not installed: {error}")


@pytest.fixture(scope="module")
def demo() -> Any:
    return sl.load("demo")


@pytest.fixture
def reference() -> Any:
    """The demonstration model of transformers, which these packages put hooks on."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(DEMO)


@torch.no_grad()
def logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    found = model(ids)
    return getattr(found, "logits", found)[0].clone()


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).abs().max())


def require_same(demo: Any, ids: torch.Tensor, theirs: torch.Tensor, steering: sl.Steering) -> None:
    """Assert that our steering does what theirs did, and that one block off it does not."""
    off = tuple((replace(site, layer=site.layer - 1), steer) for site, steer in steering.placed)
    with steering.applied(demo):
        found = apart(logits(demo, ids), theirs)
    with sl.Steering(off).applied(demo):
        wrong = apart(logits(demo, ids), theirs)
    print(f"{found:.1e}; one block off {wrong:.2g}")
    assert found < NEAR
    assert wrong > FAR


# -- repeng ----------------------------------------------------------------------------------------


@pytest.fixture
def repeng(reference: Any, tokenizer: Any) -> tuple[Any, Any]:
    """A wrapped model of repeng and a vector that it trained on every block but the first."""
    package = needed("repeng")
    blocks = list(range(1, reference.config.num_hidden_layers))
    wrapped = package.ControlModel(reference, blocks)
    data = [package.DatasetEntry(*pair) for pair in SIDES]
    return wrapped, package.ControlVector.train(wrapped, tokenizer, data)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_what_repeng_trains_and_exports(strength, repeng, demo, tokenizer, tmp_path):
    wrapped, vector = repeng
    ids = tokenizer(WORDS, return_tensors="pt")["input_ids"]
    wrapped.set_control(vector, strength)
    theirs = logits(wrapped, ids)
    vector.export_gguf(tmp_path / "v.gguf")
    for given in (tmp_path / "v.gguf", vector):
        steering = sl.load_steering(given, demo)
        assert steering.origin.imported[0].norm == "unit"
        require_same(demo, ids, theirs, strength * steering)


def test_a_pickled_vector_of_repeng_is_refused_and_read_as_an_object(repeng, demo, tmp_path):
    _, vector = repeng
    torch.save(vector, tmp_path / "v.pt")
    with pytest.raises(ValueError, match=r"class 'repeng\.extract\.ControlVector'"):
        sl.load_steering(tmp_path / "v.pt", demo)
    opened = torch.load(tmp_path / "v.pt", weights_only=False)
    assert len(sl.load_steering(opened, demo).placed) == len(vector.directions)


def test_repeng_reads_what_is_exported_for_it(repeng, demo, tokenizer, tmp_path):
    wrapped, vector = repeng
    fitted = sl.CAA.fit(demo, (["I loved it"], ["I hated it"]), sorted(vector.directions)).steering
    fitted.export(tmp_path / "v.gguf", to="gguf", model=demo)
    ids = tokenizer(WORDS, return_tensors="pt")["input_ids"]
    wrapped.set_control(type(vector).import_gguf(tmp_path / "v.gguf"), 1.0)
    require_same(demo, ids, logits(wrapped, ids), fitted)


# -- steering-vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["decoder_block", "mlp", "self_attn"])
def test_what_steering_vectors_trains(kind, reference, demo, tokenizer, tmp_path):
    package = needed("steering_vectors")
    ids = tokenizer(WORDS, return_tensors="pt")["input_ids"]
    vector = package.train_steering_vector(
        reference, tokenizer, SIDES, layer_type=kind, layers=[1, 2, 3]
    )
    torch.save(asdict(vector), tmp_path / "fields.pt")
    torch.save(vector, tmp_path / "v.pt")
    with pytest.raises(ValueError, match=r"class 'steering_vectors\.\S+\.SteeringVector'"):
        sl.load_steering(tmp_path / "v.pt", demo)
    for strength in STRENGTHS:
        with vector.apply(reference, multiplier=strength):
            theirs = logits(reference, ids)
        for given in (vector, tmp_path / "fields.pt"):
            require_same(demo, ids, theirs, strength * sl.load_steering(given, demo))


# -- sae-lens --------------------------------------------------------------------------------------

N = 48
HOOK = "blocks.3.hook_resid_post"
KINDS: dict[str, dict[str, Any]] = {
    "Standard": {},
    "TopK": {"k": 8},
    "TopK, by length": {"k": 8, "rescale_acts_by_decoder_norm": True},
    "AbsTopK, by length": {"k": 8, "rescale_acts_by_decoder_norm": True},
    "JumpReLU": {},
    "Gated": {},
    "Standard, off the decoder's bias": {"apply_b_dec_to_input": False},
    "JumpReLU, layer_norm": {"normalize_activations": "layer_norm"},
    "Gated, constant_norm_rescale": {"normalize_activations": "constant_norm_rescale"},
}
TRAINED = {
    "BatchTopK": {"k": 8},
    "MatryoshkaBatchTopK": {"k": 8, "matryoshka_widths": [16, N]},
    "JumpReLU": {},
    "Gated": {},
}


def random_sae(package: Any, kind: str, width: int, options: dict[str, Any]) -> Any:
    """An autoencoder of sae-lens with random weights."""
    settings = {"d_in": width, "d_sae": N, "dtype": "float32", "device": "cpu", **options}
    about = importlib.import_module("sae_lens.saes.sae").SAEMetadata(hook_name=HOOK)
    torch.manual_seed(0)
    sae = getattr(package, f"{kind}SAE")(
        getattr(package, f"{kind}SAEConfig")(metadata=about, **settings)
    )
    with torch.no_grad():
        for name, values in sae.named_parameters():
            random = torch.rand_like(values) if "threshold" in name else torch.randn_like(values)
            values.copy_(0.3 * random)
    return sae


@pytest.fixture(scope="module")
def activations(demo: Any) -> torch.Tensor:
    return sl.capture(demo, [WORDS], 3).at(3)


def features(folder: Path) -> Iterator[tuple[int, sl.SAEFeature]]:
    for index in range(0, N, 5):
        yield index, sl.sae_feature(folder, index)


@torch.no_grad()
def require_same_features(sae: Any, folder: Path, h: torch.Tensor) -> None:
    """Assert that each feature is as active as theirs, and adds what theirs adds."""
    active = sae.encode(h.clone())
    assert bool((active != 0).any())
    for index, feature in features(folder):
        assert feature.site == sl.Site(3)
        if feature.encoder is not None:
            theirs = active[..., index]
            found = feature.encoder.activation(h)
            # Which are the largest, one feature cannot know.
            found = torch.where(theirs != 0, found, 0.0) if feature.reason else found
            assert torch.allclose(found, theirs, atol=1e-4, rtol=1e-4)
        if sae.cfg.normalize_activations == "none":
            more = active.clone()
            more[..., index] += 1
            added = sae.decode(more) - sae.decode(active)
            assert torch.allclose(added, feature.direction.expand_as(added), atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_what_sae_lens_saves(kind, activations, tmp_path):
    package = needed("sae_lens")
    sae = random_sae(package, kind.split(",")[0], activations.shape[-1], KINDS[kind])
    sae.save_model(tmp_path)
    require_same_features(package.SAE.load_from_disk(tmp_path), tmp_path, activations)


@pytest.mark.parametrize("kind", TRAINED)
def test_what_sae_lens_saves_after_training(kind, activations, tmp_path):
    package = needed("sae_lens")
    options = {"normalize_activations": "expected_average_only_in", **TRAINED[kind]}
    sae = random_sae(package, f"{kind}Training", activations.shape[-1], options)
    if hasattr(sae, "topk_threshold"):
        sae.topk_threshold.fill_(5.0)
    # As its trainer does at the end, so that the scale is in the weights.
    sae.fold_activation_norm_scaling_factor(0.7)
    sae.save_inference_model(tmp_path)
    require_same_features(package.SAE.load_from_disk(tmp_path), tmp_path, activations)
