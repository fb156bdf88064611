"""Steerings in files: the same value again, for the same model, wholly written or not at all."""

import errno
import importlib.metadata
import json
import os
import stat
from dataclasses import dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from catalogue import CATALOGUE, MATRIX, ByToken, U, V
from safetensors import safe_open
from safetensors.torch import save_file
from tiny_models import BACKENDS, D_MODEL, N_LAYERS, PROMPTS, load, write_folder

import steerlens
from steerlens import (
    CAA,
    ActAdd,
    Chain,
    Only,
    Scaled,
    Site,
    Steering,
    When,
    at,
    batch,
    capture,
    generated,
    load_steering,
    positions,
    response,
)
from steerlens.digests import (
    read_safetensors,
    read_tensors,
    write_safetensors,
    write_tensors,
)
from steerlens.identity import (
    ModelIdentity,
    Origin,
    fingerprint,
    identity_of,
    joint_origin,
    origin_of,
)
from steerlens.interchange.opening import opened
from steerlens.reading import read_steering
from steerlens.saving import digest_of, saveable


@saveable
@dataclass(frozen=True, eq=False)
class Halved:
    """h / 2: a steer without a tensor."""

    def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
        return activation / 2


@saveable
@dataclass(frozen=True, eq=False)
class Beyond:
    """A condition: the projection on w is above a threshold."""

    w: torch.Tensor
    threshold: float = 0.0

    def __call__(self, activation: torch.Tensor) -> torch.Tensor:
        return activation @ self.w.to(activation) > self.threshold


PRE = Site(2, "resid_pre")
NESTED = Scaled(
    Only(
        Chain((When(CAA(V), Beyond(U, 1 / 3)), Halved(), Scaled(CAA(U), -0.0))),
        positions(None, 7).without_bos,
    ),
    0.1 + 0.2,
)
STEERINGS = {
    "CAA": at(1, CAA(V)),
    "ActAdd": at(PRE, ActAdd(MATRIX, c=-2.0, alignment="back", dims=(3, 9))),
    "Scaled": at(1, Scaled(CAA(V), 1e-7)),
    "Only": at(1, Only(CAA(V), response)),
    "Chain": at(1, Chain((CAA(V), Halved(), CAA(U)))),
    "When": at(1, When(CAA(V), Beyond(U))),
    "nested": at(Site(3, "mlp_out"), NESTED),
    "one steer at several sites": at(0, CAA(V)) + at(Site(0, "attn_out"), CAA(U)) + at(0, Halved()),
    "scaled and limited": (at(1, CAA(V)) + at(2, CAA(U))).scaled(2.5).only(generated.without_bos),
    "one tensor twice": at(1, CAA(V)) + at(2, CAA(V)),
    "part of a tensor": at(1, CAA(MATRIX[1])) + at(2, CAA(MATRIX.T.contiguous().T[2])),
    "bfloat16": at(1, CAA(V.bfloat16())),
    "float64": at(1, CAA(V.double() / 3)),
    "float16": at(1, CAA(V.half())),
    "sees the tokens": at(1, ByToken(V)),
    "sees the tokens, scaled": 3.0 * at(1, ByToken(V)),
    "sees the tokens, limited": at(1, ByToken(V)).scaled(-1.5).only(positions(1, 4)),
    "sees the tokens, in a chain": at(1, Chain((ByToken(V), CAA(U)))),
    "together": at(1, CAA(V)) + at(1, ByToken(U)),
    "together, scaled and limited": (at(1, CAA(V)) + at(2, ByToken(U))).scaled(0.5).only(response),
    "together, other way round": at(1, ByToken(V)) + at(1, NESTED),
    "three together": at(1, Halved()) + at(1, ByToken(V)) + at(2, CAA(U)),
    "a difference": at(1, CAA(V)) - at(1, ByToken(U)),
}
each_steering = pytest.mark.parametrize("steering", STEERINGS.values(), ids=STEERINGS)


def require_same(first: Any, second: Any) -> None:
    """Both are the same tree of values: classes, numbers to the bit, tensors to the bit."""
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert (first.dtype, first.shape) == (second.dtype, second.shape)
        assert first.contiguous().view(torch.uint8).equal(second.contiguous().view(torch.uint8))
    elif isinstance(first, tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            require_same(one, other)
    elif is_dataclass(first):
        for item in fields(first):
            if item.name != "origin":
                require_same(getattr(first, item.name), getattr(second, item.name))
    else:
        assert repr(first) == repr(second)


def values_in(value: Any) -> list[Any]:
    """Every value in a tree of dataclasses and tuples."""
    if isinstance(value, tuple):
        inner = value
    else:
        inner = [getattr(value, item.name) for item in fields(value)] if is_dataclass(value) else []
    return [value, *(leaf for part in inner for leaf in values_in(part))]


def header_of(path: Path) -> dict[str, Any]:
    """The metadata, read with safetensors alone."""
    with safe_open(path, "pt") as file:
        assert list(file.metadata()) == ["steerlens"]
        return json.loads(file.metadata()["steerlens"])


def fitted(model: Any, *, layer: int = 1, positive: tuple[str, ...] = PROMPTS[:2]) -> Steering:
    return CAA.from_prompts(model, list(positive), list(PROMPTS[2:4]), layer)


@each_steering
def test_what_is_loaded_is_what_was_saved_to_the_bit(steering, gpt2, tmp_path):
    path = steering.save(tmp_path / "s.safetensors", gpt2)
    assert path == tmp_path / "s.safetensors"
    loaded = load_steering(str(path), gpt2)
    require_same(steering, loaded)
    again = loaded.save(tmp_path / "again.safetensors", gpt2)
    assert again.read_bytes() == path.read_bytes()


def overwrite(path: Path) -> None:
    """Other bytes in the same file, in its place, as a copy over it has them."""
    with path.open("r+b") as file:
        file.write(bytes(path.stat().st_size))


def test_what_is_loaded_stays_when_its_file_changes(tmp_path):
    v = torch.randn(D_MODEL)
    ours, foreign, tensors = (tmp_path / f"{n}.safetensors" for n in ("ours", "foreign", "tensors"))
    at(1, CAA(v)).save(ours)
    save_file({"v": v}, foreign)
    write_tensors(tensors, {"v": v}, "a vector")
    held = [
        read_steering(ours).placed[0][1].direction,
        opened(foreign).values["v"],
        read_tensors(tensors, "a vector")["v"],
    ]
    for path in (ours, foreign, tensors):
        overwrite(path)
    assert all(torch.equal(one, v) for one in held)


def test_what_is_loaded_lies_as_what_was_saved(tmp_path):
    # BLAS adds up in another order where a vector does not begin at a multiple of its registers.
    v, found = torch.randn(D_MODEL), []
    for longer in range(0, 64, 8):  # so the numbers begin at another place in the file
        write_safetensors(tmp_path / "file.safetensors", {"v": v}, {"about": longer * "."})
        found.append(read_safetensors(tmp_path / "file.safetensors")[1]["v"].data_ptr() % 64)
    assert found == [v.data_ptr() % 64] * len(found)


def test_every_catalogued_steering_is_saved_or_refused_for_its_plain_function(gpt2, tmp_path):
    done = set()
    for entry in CATALOGUE.values():
        steering = entry.build(gpt2)
        plain = any(type(value).__name__ == "function" for value in values_in(steering))
        path = tmp_path / "s.safetensors"
        path.unlink(missing_ok=True)
        if plain:
            with pytest.raises(ValueError, match="A function cannot be saved"):
                steering.save(path, gpt2)
            assert not path.exists()
            continue
        steering.save(path, gpt2)
        require_same(steering, load_steering(path, gpt2))
        done.add(entry.covers)
    assert set(steerlens.methods.__all__) <= done


def test_a_loaded_steering_steers_as_the_saved_one_did(model, tmp_path):
    for name in ("ActAdd", "nested", "When", "one steer at several sites"):
        steering = STEERINGS[name]
        path = steering.save(tmp_path / "s.safetensors", model)
        texts = list(PROMPTS)
        before = capture(model, texts, 3, steering=steering).at(3)
        after = capture(model, texts, 3, steering=load_steering(path, model)).at(3)
        torch.testing.assert_close(after, before, rtol=0, atol=0)
        assert not torch.equal(before, capture(model, texts, 3).at(3)), name


def test_the_metadata_says_what_where_for_which_model_and_with_which_versions(gpt2, tmp_path):
    steering = fitted(gpt2, layer=2).only(response)
    header = header_of(steering.save(tmp_path / "s.safetensors"))
    site, steer = header["steering"]["fields"]["placed"]["tuple"][0]["tuple"]
    assert site == {"class": "Site", "fields": {"layer": 2, "stream": "resid_post"}}
    assert steer["class"] == "Only"
    assert steer["fields"]["steer"] == {
        "class": "CAA",
        "fields": {"direction": {"tensor": "tensor_0"}},
    }
    assert steer["fields"]["scope"]["fields"]["name"] == "response"
    known = header["origin"]["model"]
    assert known["fingerprint"] == fingerprint(gpt2)
    assert (known["n_layers"], known["d_model"]) == (N_LAYERS, D_MODEL)
    assert known["processing"] == "none"
    assert Path(known["name"]).name == "tiny-gpt2"
    assert len(header["origin"]["data"]) == 16
    assert header["format"] == 1
    installed = {n: importlib.metadata.version(n) for n in ("torch", "transformer-lens")}
    assert header["versions"].items() >= installed.items()


def test_the_seed_and_the_data_of_the_fit_are_recorded(gpt2, tmp_path):
    one, other = torch.tensor([[1, 2], [3, 4]]), torch.tensor([[1, 2], [3, 5]])
    origin = origin_of(gpt2, seed=7, data=[one])
    path = Steering(((Site(1), CAA(V)),), origin).save(tmp_path / "s.safetensors")
    assert header_of(path)["origin"]["seed"] == 7
    assert load_steering(path, gpt2).origin == origin
    assert origin.data == origin_of(gpt2, data=[one.clone()]).data
    assert origin.data != origin_of(gpt2, data=[other]).data
    assert origin.data != origin_of(gpt2, data=[one.T]).data
    assert origin.data != origin_of(gpt2, data=[one.flatten()]).data
    assert origin.data != origin_of(gpt2, data=[one[:1], one[1:]]).data
    assert origin_of(gpt2).data == ""


def test_the_digest_of_the_data_is_that_of_whole_prompts(gpt2):
    # Both end in the same token, the only one that CAA reads.
    first = fitted(gpt2, positive=("I love you.", "The dog ran."))
    assert first.origin == fitted(gpt2, positive=("I love you.", "The dog ran.")).origin
    other = fitted(gpt2, positive=("I hate you.", "The dog ran."))
    assert first.origin.data != other.origin.data
    added = [
        ActAdd.fit(gpt2, (text, ""), 1).steering.origin.data for text in ("love", "love", "hate")
    ]
    assert added[0] == added[1] != added[2]


def test_a_steering_fitted_on_one_backend_acts_the_same_on_the_other(both_backends, tmp_path):
    here, there = both_backends
    steering = fitted(here) + ActAdd.fit(here, ("love", "hate"), 2, c=2.0).steering
    loaded = load_steering(steering.save(tmp_path / "s.safetensors"), there)
    require_same(steering, loaded)
    for model, other in ((here, there), (there, here)):
        ours = capture(model, list(PROMPTS), 3, steering=steering).at(3)
        theirs = capture(other, list(PROMPTS), 3, steering=loaded).at(3)
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_steering_fitted_in_float32_loads_on_a_bfloat16_copy(model, bfloat16_model, tmp_path):
    path = fitted(model).save(tmp_path / "s.safetensors")
    loaded = load_steering(path, bfloat16_model)
    assert loaded.placed[0][1].direction.dtype == torch.float32
    plain, steered = (
        capture(bfloat16_model, list(PROMPTS), 1, steering=steering).at(1)
        for steering in (None, loaded)
    )
    assert steered.dtype == torch.bfloat16
    assert torch.equal(steered, plain + loaded.placed[0][1].direction.bfloat16())
    assert load_steering(fitted(bfloat16_model).save(path), model).origin.model.processing == "none"


@pytest.mark.skipif("hooked" not in BACKENDS, reason="folding needs HookedTransformer")
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_steering_for_plain_weights_is_refused_by_folded_ones(architecture, folders, tmp_path):
    plain = load(folders[architecture], "hooked")
    folded = steerlens.load(folders[architecture], backend="hooked", processing="fold")
    assert identity_of(folded).processing == "fold"
    path = fitted(plain).save(tmp_path / "s.safetensors")
    with pytest.raises(ValueError, match=r"another model .*processing 'none' against 'fold'"):
        load_steering(path, folded)
    path = fitted(folded).save(tmp_path / "s.safetensors")
    assert header_of(path)["origin"]["model"]["processing"] == "fold"
    require_same(load_steering(path, folded), fitted(folded))
    with pytest.raises(ValueError, match=r"another model .*processing 'fold' against 'none'"):
        load_steering(path, plain)


def test_beside_a_steer_that_sees_the_tokens_every_other_is_checked_against_the_model(
    gpt2, tmp_path
):
    toy = at(1, ByToken(V))
    wide, deep = at(1, CAA(torch.ones(7))) + toy, toy + at(9, CAA(V))
    for steering, words in ((wide, "d_model 7"), (deep, r"blocks\.9\.hook_resid_post")):
        for tried in (steering, 2.0 * steering, steering.only(response)):
            with pytest.raises(ValueError, match=words):
                tried.save(tmp_path / "s.safetensors", gpt2)
            path = tried.save(tmp_path / "s.safetensors")
            with pytest.raises(ValueError, match=words):
                load_steering(path, gpt2)
            path.unlink()


def test_the_model_given_when_saving_is_the_origin_of_what_has_none(gpt2, tmp_path):
    path = at(1, CAA(V)).save(tmp_path / "s.safetensors")
    assert header_of(path)["origin"] is None
    assert load_steering(path, gpt2).origin is None
    path = at(1, CAA(V)).save(path, gpt2)
    assert load_steering(path, gpt2).origin == Origin(identity_of(gpt2))


def test_a_loaded_steering_still_knows_its_origin_and_saves_it_again(gpt2, tmp_path):
    steering = fitted(gpt2)
    loaded = load_steering(steering.save(tmp_path / "s.safetensors"), gpt2)
    assert loaded.origin == steering.origin
    again = loaded.scaled(2.0).only(response).save(tmp_path / "again.safetensors")
    assert load_steering(again, gpt2).origin == steering.origin


def test_the_origin_of_a_sum(gpt2):
    one, same = fitted(gpt2, layer=1), fitted(gpt2, layer=2)
    assert one.origin == same.origin
    assert (one + same).origin == one.origin
    assert (one + at(2, CAA(V))).origin == one.origin
    assert (at(2, CAA(V)) + one).origin == one.origin
    assert (at(2, CAA(V)) + at(1, CAA(V))).origin is None
    other = fitted(gpt2, positive=PROMPTS[1:3])
    # No one digest or seed is true of both, the model is.
    assert (one + other).origin == Origin(one.origin.model)


def test_steerings_of_different_models_do_not_add_up():
    here = Origin(ModelIdentity("a", 4, 32, "none", "here"))
    there = replace(here, model=replace(here.model, fingerprint="b", d_model=16, name="there"))
    with pytest.raises(ValueError, match="fingerprint 'a' against 'b'; d_model 32 against 16\\)"):
        joint_origin(here, there)
    renamed = replace(here, model=replace(here.model, name="renamed"))
    assert joint_origin(here, renamed).model.fingerprint == "a"


def test_the_origin_of_steerings_together_is_in_their_file(gpt2, tmp_path):
    steering, toy = fitted(gpt2), at(1, ByToken(V))
    for joint in (steering + toy, 2.0 * (toy + steering), toy - steering, sum([toy, steering])):
        assert joint.origin == steering.origin
        loaded = load_steering(joint.save(tmp_path / "s.safetensors"), gpt2)
        assert loaded.origin == steering.origin
        assert header_of(tmp_path / "s.safetensors")["origin"]["data"] == steering.origin.data


def test_the_name_of_a_model_does_not_matter(gpt2, tmp_path):
    copy = write_folder(tmp_path / "another name", "gpt2")
    path = fitted(gpt2).save(tmp_path / "s.safetensors")
    loaded = load_steering(path, load(copy, BACKENDS[-1]))
    assert loaded.origin.model.name != str(copy)


def stop(*args: Any, **options: Any) -> None:
    raise KeyboardInterrupt


def full(*args: Any, **options: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("what", "broken", "kind"),
    [
        ("pathlib.Path.replace", full, OSError),
        ("pathlib.Path.replace", stop, KeyboardInterrupt),
        ("pathlib.Path.chmod", full, OSError),
        ("steerlens.whole.os.fsync", full, OSError),
        ("steerlens.whole.os.fsync", stop, KeyboardInterrupt),
        ("steerlens.whole.tempfile.mkstemp", full, OSError),
    ],
)
def test_a_save_that_is_cut_short_leaves_the_old_file_and_nothing_else(
    what, broken, kind, gpt2, tmp_path, monkeypatch
):
    path = at(1, CAA(V)).save(tmp_path / "s.safetensors", gpt2)
    before = path.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(what, broken)
        with pytest.raises(kind) as caught:
            at(1, CAA(U)).save(path, gpt2)
    if kind is OSError:
        assert str(path) in str(caught.value)
        assert "No space left" in str(caught.value)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before
    require_same(load_steering(path, gpt2), at(1, CAA(V)))


def test_a_first_save_that_is_cut_short_leaves_nothing(gpt2, tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="Nothing was left behind"):
        at(1, CAA(V)).save(tmp_path / "s.safetensors", gpt2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="file modes are POSIX's")
def test_others_may_read_the_file_whatever_the_temporary_one_was(gpt2, tmp_path):
    path = at(1, CAA(V)).save(tmp_path / "s.safetensors", gpt2)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_saving_over_a_file_replaces_it(gpt2, tmp_path):
    path = at(1, NESTED).save(tmp_path / "s.safetensors", gpt2)
    at(1, CAA(U)).save(path, gpt2)
    require_same(load_steering(path, gpt2), at(1, CAA(U)))
    assert list(tmp_path.iterdir()) == [path]


def test_saving_does_not_touch_or_share_the_tensors(gpt2, tmp_path):
    v = V.clone()
    path = at(1, CAA(v)).save(tmp_path / "s.safetensors", gpt2)
    loaded = load_steering(path, gpt2)
    loaded.placed[0][1].direction.zero_()
    assert torch.equal(v, V)
    require_same(load_steering(path, gpt2), at(1, CAA(V)))


def test_a_class_that_is_defined_again_takes_the_place_of_the_first(gpt2, tmp_path):
    # As a notebook does when its cell is run again.
    def defined() -> type:
        @saveable
        @dataclass(frozen=True, eq=False)
        class Again:
            def __call__(self, activation: torch.Tensor, hook: Any = None) -> torch.Tensor:
                return activation + 1

        return Again

    first, second = defined(), defined()
    path = at(1, second()).save(tmp_path / "s.safetensors", gpt2)
    assert type(load_steering(path, gpt2).placed[0][1]) is second
    with pytest.raises(ValueError, match="A Again cannot be saved"):
        at(1, first()).save(path, gpt2)


def test_a_position_free_steering_from_a_file_needs_no_window(gpt2, tmp_path):
    path = at(1, CAA(V)).save(tmp_path / "s.safetensors", gpt2)
    tokens, _ = batch(gpt2, ["The dog ran"])
    plain = gpt2(tokens)
    with load_steering(path, gpt2).applied(gpt2):
        assert not torch.equal(gpt2(tokens), plain)


def test_a_digest_is_of_what_is_saved_and_of_nothing_else(gpt2):
    same = [digest_of(each) for each in (at(1, CAA(V)), at(1, CAA(V.clone())), fitted_like(V))]
    assert len(set(same)) == 1
    assert len(same[0]) == 16
    others = [CAA(V), at(2, CAA(V)), at(1, CAA(U)), at(1, CAA(V.double())), 2.0 * at(1, CAA(V))]
    assert len({same[0], *(digest_of(other) for other in others)}) == len(others) + 1
    with pytest.raises(ValueError, match="A function cannot be saved"):
        digest_of(at(1, stop))


def fitted_like(v: torch.Tensor) -> Steering:
    """As if fitted: with an origin, which is no part of what a steering does."""
    return Steering(((Site(1), CAA(v)),), Origin(ModelIdentity("a", 4, D_MODEL, "none")))
