"""The file for lm-evaluation-harness: what is in it, what is refused, and what the harness does.

The harness itself is run where it is installed (`make test-consumers`), on tiny models and a
task of this file, without a network. Its log-probabilities are ours; one block off they are not.
"""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import BACKENDS, D_MODEL, N_LAYERS, build_tokenizer, load

from steerlens import CAA, PSR, ActAdd, InstructionVector, Scaled, Site, at, batch, response
from steerlens.identity import loaded
from steerlens.interchange.lm_eval_steered import Hookpoints
from steerlens.interchange.request import ExportError
from steerlens.runtime.forward import logits

TOLERANCE = 2e-5
V = torch.linspace(-1, 1, D_MODEL)
U = torch.ones(D_MODEL) / D_MODEL**0.5
TEXTS = ("The dog ran", "I love you because you are kind", "What is it?")
CHOICES = (" to the house", " the cat")
ARCHITECTURES = ("gpt2", "llama", "neox")
STEERINGS = {
    "add": 2.0 * at([1, 2], CAA(V)) + at(2, CAA(U)),
    "last block": at(N_LAYERS - 1, CAA(V)),
    "embeddings": at(Site(0, "resid_pre"), CAA(0.3 * V)),
    "clamp": at(1, InstructionVector(U, 3.0)) + at(2, CAA(V)),
}


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_neox(tmp_path_factory.mktemp("neox") / "tiny-neox")


def write_neox(folder: Path) -> Path:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    tokenizer = build_tokenizer("gpt2")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"hidden_size": D_MODEL, "intermediate_size": 64, "num_attention_heads": 4}
        config = GPTNeoXConfig(
            vocab_size=400,
            num_hidden_layers=N_LAYERS,
            max_position_embeddings=128,
            initializer_range=0.25,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **sizes,
        )
        GPTNeoXForCausalLM(config).float().eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def folder_of(name: str, folders: dict[str, Path], neox: Path) -> Path:
    return neox if name == "neox" else folders[name]


def written(path: Path) -> dict[str, dict[str, Any]]:
    return torch.load(path, weights_only=True)


# -- The file --------------------------------------------------------------------------------------


def test_the_vectors_of_one_place_are_summed_under_the_names_of_transformers(model, kind, tmp_path):
    steering = 2.0 * at([1, 2], CAA(V)) + at(Site(3, "resid_pre"), CAA(U)) - at(1, CAA(U))
    steering.export(tmp_path / "s.pt", to="lm-eval", model=model)
    entries = written(tmp_path / "s.pt")
    prefix = {"gpt2": "h", "llama": "layers"}[kind.architecture]
    assert list(entries) == [f"{prefix}.1", f"{prefix}.2"]
    for entry, wanted in zip(entries.values(), (2 * V - U, 2 * V + U), strict=True):
        assert torch.allclose(entry.pop("steering_vector"), wanted, atol=1e-6)
        kept = {"steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}
        assert entry == kept


def test_an_adjusted_projection_is_a_clamp(gpt2, tmp_path):
    steering = at(-1, InstructionVector(U, 3.0))
    steering.export(tmp_path / "s.pth", to="lm-eval", model=gpt2)
    (name, entry), *rest = written(tmp_path / "s.pth").items()
    assert (name, entry["action"], entry["steering_coefficient"], rest) == ("h.3", "clamp", 3.0, [])
    assert torch.allclose(entry["steering_vector"], U)


def test_the_embeddings_are_a_module_of_their_own(model, kind, tmp_path):
    at(Site(0, "resid_pre"), CAA(V)).export(tmp_path / "s.pt", to="lm-eval", model=model)
    assert list(written(tmp_path / "s.pt")) == [
        {"gpt2": "wte", "llama": "embed_tokens"}[kind.architecture]
    ]


@pytest.mark.parametrize(
    ("steering", "said"),
    [
        (at(1, CAA(V)).only(response), "limited to 'response'"),
        (at(1, ActAdd(V[None])), "to each position of the prompt"),
        (at(1, PSR(V[None], V[:1], V[None])), "cannot compute what PSR does"),
        (at(1, InstructionVector(U, 3.0)) + at(1, CAA(V)), "does 2 things"),
        (at(1, InstructionVector(U, 3.0)) + at(1, InstructionVector(-U, 3.0)), "does 2 things"),
        (0.5 * at(1, InstructionVector(U, 3.0)), "cannot compute what InstructionVector does"),
        (0.0 * at(1, CAA(V)), "At strength 0"),
        (at(Site(1, "attn_out"), CAA(V)), "between blocks"),
    ],
)
def test_what_the_harness_cannot_do_is_refused(gpt2, tmp_path, steering, said):
    with pytest.raises(ExportError, match=said):
        steering.export(tmp_path / "s.pt", to="lm-eval", model=gpt2)
    assert not list(tmp_path.iterdir())


def test_another_suffix_and_an_option_are_refused(gpt2, tmp_path):
    with pytest.raises(ValueError, match=r"\.pt or \.pth; found 's\.safetensors'"):
        at(1, CAA(V)).export(tmp_path / "s.safetensors", to="lm-eval", model=gpt2)
    with pytest.raises(ValueError, match="has no option 'scale'"):
        at(1, CAA(V)).export(tmp_path / "s.pt", to="lm-eval", model=gpt2, scale=2)


def test_a_clamp_fitted_on_folded_weights_is_refused_and_a_vector_is_not(folders, tmp_path):
    if len(BACKENDS) < 2:
        pytest.skip("no HookedTransformer to fold")
    import steerlens

    model = steerlens.load(folders["gpt2"], backend="hooked", processing="fold")
    with pytest.raises(ExportError, match="folded"):
        at(1, InstructionVector(U, 3.0)).export(tmp_path / "s.pt", to="lm-eval", model=model)
    at(1, CAA(V)).export(tmp_path / "s.pt", to="lm-eval", model=model)


def test_embeddings_that_a_model_scales_are_not_steered_at_their_module(gpt2):
    names = Hookpoints(gpt2)
    names.config = type(names.config)(**{**names.config.to_dict(), "model_type": "gemma2"})
    names.config.model_type = "gemma2"
    with pytest.raises(ExportError, match="kind 'gemma2'"):
        names.of(-1)
    names.config.model_type, names.config.word_embed_proj_dim = "opt", 7
    with pytest.raises(ExportError, match="kind 'opt'"):
        names.of(-1)
    names.config.word_embed_proj_dim = names.config.hidden_size
    assert names.of(-1) == "wte"


def test_the_blocks_are_those_of_the_text(gpt2):
    names = Hookpoints(gpt2)
    blocks, other = (torch.nn.ModuleList([torch.nn.Identity()] * n) for n in (N_LAYERS, 3))
    listed = [("vision.layers", blocks), ("text.layers", blocks), ("text.layers.0.all", blocks)]
    assert names._blocks([("heads", other), *listed]) == "text.layers"
    with pytest.raises(ExportError, match="No list of 4 blocks"):
        names._blocks([("heads", other)])


def test_a_model_of_which_only_the_class_is_known_has_the_same_names(folders, monkeypatch):
    if len(BACKENDS) < 2:
        pytest.skip("a bridge holds its model of transformers")
    model = load(folders["llama"], "hooked")
    known = Hookpoints(model)
    monkeypatch.setattr("steerlens.interchange.lm_eval_steered.loaded", lambda _: None)
    names = Hookpoints(model)
    assert (
        (names.of(2), names.of(-1)) == (known.of(2), known.of(-1)) == ("layers.2", "embed_tokens")
    )
    monkeypatch.setattr(model.cfg, "original_architecture", "NoSuchModel")
    with pytest.raises(ExportError, match="not known which class"):
        Hookpoints(model)


# -- The harness -----------------------------------------------------------------------------------

HARNESS = """
import json, sys
import lm_eval
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.tasks import TaskManager

folder, files, tasks = json.loads(sys.argv[1])
manager = TaskManager(include_path=tasks, include_defaults=False)
answers = {}
for name, file in files.items():
    model = SteeredModel(
        pretrained=folder, steer_path=file, device="cpu", dtype="float32", batch_size=2
    )
    done = lm_eval.simple_evaluate(
        model=model, tasks=["ours"], task_manager=manager, log_samples=True, bootstrap_iters=0
    )
    samples = sorted(done["samples"]["ours"], key=lambda sample: sample["doc_id"])
    answers[name] = [[one[0][0] for one in sample["resps"]] for sample in samples]
    pairs = [model._encode_pair(*pair) for sample in samples for pair in sample["arguments"]]
print(json.dumps([answers, pairs]))
"""
TASK = """task: ours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{text}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: gold
target_delimiter: ""
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
"""


def write_task(folder: Path) -> Path:
    """The folder of the task `ours`, whose data lie beside it."""
    data, tasks = folder / "data.jsonl", folder / "tasks"
    lines = [{"text": text, "choices": list(CHOICES), "gold": 0} for text in TEXTS]
    data.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    tasks.mkdir()
    (tasks / "ours.yaml").write_text(TASK.format(data=data))
    return tasks


def in_the_harness(folder: Path, files: dict[str, str], tmp_path: Path) -> tuple[dict, list]:
    """Log-probabilities of each choice by the name of the file, and the (prompt, choice) ids."""
    tasks = write_task(tmp_path)
    asked = json.dumps([str(folder), files, str(tasks)])
    here = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", HARNESS, asked],
        capture_output=True,
        text=True,
        env=here,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def ours(model: Any, pairs: list, steering: Any) -> torch.Tensor:
    """The log-probability of each choice after its prompt, by our own steered model."""
    found = []
    for prompt, choice in pairs:
        ids = torch.tensor([[*prompt, *choice]])
        tokens, window = batch(model, (ids, torch.ones_like(ids)))
        with torch.no_grad(), steering.applied(model, window):
            scores = logits(model, tokens, window)[0].log_softmax(-1)
        places = range(len(prompt) - 1, len(prompt) + len(choice) - 1)
        found.append(sum(float(scores[p, id_]) for p, id_ in zip(places, choice, strict=True)))
    return torch.tensor(found)


harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None,
    reason="lm-evaluation-harness is not installed: make test-consumers",
)


@harness
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_harness_computes_what_we_do_and_one_block_off_it_does_not(
    name, folders, neox, tmp_path
):
    folder = folder_of(name, folders, neox)
    models = [load(folder, backend) for backend in BACKENDS]
    check_on(name, models, folder, STEERINGS, tmp_path)


@harness
def test_the_harness_computes_what_we_do_on_the_demonstration_model(tmp_path):
    model = load("demo", "bridge")
    v = torch.randn(model.cfg.d_model, generator=torch.Generator().manual_seed(1))
    steerings = {f"CAA at {strength}": at([2, 3], CAA(strength * v)) for strength in (-2, 1, 4)}
    check_on("demo", [model], loaded(model).folder, steerings, tmp_path)


@harness
def test_the_command_of_the_documents_runs(folders, tmp_path):
    at(1, CAA(V)).export(
        tmp_path / "steering.pt", to="lm-eval", model=load(folders["gpt2"], "bridge")
    )
    write_task(tmp_path)
    command = (
        "lm_eval --model steered "
        "--model_args pretrained=MODEL,steer_path=steering.pt,dtype=float32 "
        "--tasks ours --include_path tasks"
    ).replace("MODEL", str(folders["gpt2"]))
    here = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "lm_eval"), *command.split()[1:], "--device", "cpu"],
        capture_output=True,
        text=True,
        env=here,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "|ours |" in done.stdout


def check_on(
    name: str, models: list[Any], folder: Path, steerings: dict[str, Any], tmp_path: Path
) -> None:
    """The steerings in the harness and by us, on every backend; the first also one block off."""
    files = {}
    for number, (what, steering) in enumerate(steerings.items()):
        files[what] = str(tmp_path / f"{number}.pt")
        steering.export(files[what], to="lm-eval", model=models[0])
        for other in models[1:]:
            steering.export(tmp_path / "other.pt", to="lm-eval", model=other)
            assert str(written(tmp_path / "other.pt")) == str(written(Path(files[what])))
    first, kept = next(iter(steerings)), written(Path(files[next(iter(steerings))]))
    files["off"] = str(tmp_path / "off.pt")
    torch.save({one_less(point): entry for point, entry in kept.items()}, files["off"])
    answers, pairs = in_the_harness(folder, files, tmp_path)
    for model in models:
        for what, steering in steerings.items():
            theirs = torch.tensor(answers[what]).flatten()
            apart = float((ours(model, pairs, steering) - theirs).abs().max())
            print(f"{name}, {what}: {apart:.1e}")
            assert apart <= TOLERANCE, what
        off = torch.tensor(answers["off"]).flatten()
        apart = float((ours(model, pairs, steerings[first]) - off).abs().max())
        print(f"{name}, {first}, one block off: {apart:.1e}")
        assert apart > 0.1


def one_less(hookpoint: str) -> str:
    """The name of the block before."""
    blocks, _, number = hookpoint.rpartition(".")
    return f"{blocks}.{int(number) - 1}"


@harness
@pytest.mark.real
def test_the_harness_computes_what_we_do_on_a_real_model(one_smollm2, tmp_path):
    d_model = one_smollm2.cfg.d_model
    v = torch.randn(d_model, generator=torch.Generator().manual_seed(1))
    steerings = {f"CAA at {strength}": at([10, 15], CAA(strength * v)) for strength in (-2, 1, 4)}
    steerings["clamp"] = at(12, InstructionVector(v / v.norm(), 5.0))
    check_on("SmolLM2", [one_smollm2], loaded(one_smollm2).folder, steerings, tmp_path)


def test_the_log_probabilities_of_this_test_depend_on_the_block(gpt2):
    pairs = [([1, 20, 30, 40], [50, 60])]
    found = [ours(gpt2, pairs, at(layer, Scaled(CAA(V), 2.0))) for layer in (1, 2)]
    assert float((found[0] - found[1]).abs().max()) > 0.1
