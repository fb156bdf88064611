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
# # Hooks by hand
#
# Every method of this course reads activations inside a model, and writes others there. Both are done
# with **hooks**. This unit uses TransformerLens alone, so that nothing is hidden: you read, write, take
# away, swap, and leave the model as you found it.
#
# **Goals.** After this unit you can
#
# - find the place in a transformer that you want, by its name, and know the shape of what is there;
# - write a hook that adds, removes or swaps, at the tokens that you mean, and that leaves no trace;
# - read a prediction off every layer, and find the layer and the token where a fact is decided;
# - say what differs between TransformerLens' two kinds of model, `HookedTransformer` and the bridge.
#
# **Before.** Unit 0, and some PyTorch: indexing, `dim=`, broadcasting.
#
# **Time.** 115 minutes, 70 of them for nine exercises.

# %%
import os
from importlib.metadata import version

import pandas as pd
import plotly.express as px
import torch
from checks.display import likeliest, quiet, tokens_in_order

import steerlens

quiet()
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
torch.set_grad_enabled(False)  # nothing is trained here
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
middle = n_layers // 2
print(f"{type(model).__name__}: {n_layers} layers, {d_model} numbers in an activation")

# %% [markdown]
# ## 1. Read
#
# ### Places have names
#
# A transformer keeps one vector for each token, the **residual stream**. Each layer reads it, and adds
# something to it twice: what attention found at other tokens, and what the MLP computed from the sum.
#
# | name | what is there, `[texts, positions, d_model]` |
# |---|---|
# | `blocks.2.hook_resid_pre` | the stream before layer 2 |
# | `blocks.2.hook_attn_out` | what attention adds |
# | `blocks.2.hook_mlp_out` | what the MLP adds |
# | `blocks.2.hook_resid_post` | the stream after layer 2, which is that before layer 3 |
#
# `run_with_cache` runs the model and keeps what is at every place.

# %%
TEXT = "The old castle by the sea was"
tokens = model.to_tokens(TEXT)
logits, cache = model.run_with_cache(tokens)
print(len(cache), "places; logits", list(logits.shape), "= [texts, positions, vocabulary]")
print("the stream after layer 0:", list(cache["blocks.0.hook_resid_post"].shape))
tokens_in_order(model, tokens)

# %% exercise [markdown] name="lengths" difficulty=1 importance=2 minutes=5
# ### How long are they?
#
# Write `lengths(cache, layer)`: the length (Euclidean norm) of each token's activation *after* a layer,
# `[positions]`, for the one text that is in the cache.

# %% hint [markdown]
# Take the text out with `[0]`. What remains is `[positions, d_model]`; over which axis do you measure?

# %% hint [markdown]
# `x.norm(dim=-1)` measures along the last axis and leaves the others.


# %% stub
def lengths(cache, layer):
    """The length of each token's activation after a layer, [positions]."""
    ...


# %% wrong says="Wrong axis"
def lengths(cache, layer):
    return cache[f"blocks.{layer}.hook_resid_post"][0].norm(dim=0)


# %% wrong says="*before* the layer"
def lengths(cache, layer):
    return cache[f"blocks.{layer}.hook_resid_pre"][0].norm(dim=-1)


# %% wrong says="an axis of length 1"
def lengths(cache, layer):
    return cache[f"blocks.{layer}.hook_resid_post"].norm(dim=-1)


# %% wrong says="One number for the whole text"
def lengths(cache, layer):
    return cache[f"blocks.{layer}.hook_resid_post"][0].norm()


# %% wrong says="returns nothing"
def lengths(cache, layer):
    cache[f"blocks.{layer}.hook_resid_post"][0].norm(dim=-1)


# %% solution
def lengths(cache, layer):
    """The length of each token's activation after a layer, [positions]."""
    return cache[f"blocks.{layer}.hook_resid_post"][0].norm(dim=-1)


# %% [markdown]
# Two things to look for: do activations grow from layer to layer, and is one token unlike all others?
# (It is the first, in most models. Attention rests on it when there is nothing to look at. Averages of
# activations had better leave it out.)

# %%
words = tokens_in_order(model, tokens).loc["token"].tolist()
pd.DataFrame([lengths(cache, i).tolist() for i in range(n_layers)], columns=words).rename_axis(
    "layer"
).round(1)

# %% exercise [markdown] name="rebuilt" difficulty=1 importance=3 minutes=5
# ### A layer only adds
#
# Write `rebuilt(cache, layer)`: the stream after a layer, `[positions, d_model]`, computed from the
# other three places of the table, without reading `hook_resid_post`.

# %% hint [markdown]
# What goes in, plus what attention adds, plus what the MLP adds.

# %% hint [markdown]
# All three have the same shape. Take the one text out with `[0]`.


# %% stub
def rebuilt(cache, layer):
    """The stream after a layer, from what went in and what was added, [positions, d_model]."""
    block = f"blocks.{layer}"
    before = cache[f"{block}.hook_resid_pre"][0]
    return ...


# %% wrong says="MLP is missing"
def rebuilt(cache, layer):
    block = f"blocks.{layer}"
    return cache[f"{block}.hook_resid_pre"][0] + cache[f"{block}.hook_attn_out"][0]


# %% wrong says="went in is missing"
def rebuilt(cache, layer):
    block = f"blocks.{layer}"
    return cache[f"{block}.hook_attn_out"][0] + cache[f"{block}.hook_mlp_out"][0]


# %% wrong says="Attention is missing"
def rebuilt(cache, layer):
    block = f"blocks.{layer}"
    return cache[f"{block}.hook_resid_pre"][0] + cache[f"{block}.hook_mlp_out"][0]


# %% wrong says="Wrong layer"
def rebuilt(cache, layer):
    block = f"blocks.{layer + 1}"
    parts = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")
    return sum(cache[f"{block}.{part}"][0] for part in parts)


# %% solution
def rebuilt(cache, layer):
    """The stream after a layer, from what went in and what was added, [positions, d_model]."""
    block = f"blocks.{layer}"
    before = cache[f"{block}.hook_resid_pre"][0]
    return before + cache[f"{block}.hook_attn_out"][0] + cache[f"{block}.hook_mlp_out"][0]


# %% [markdown]
# This is why steering works at all. Whatever you add to the stream stays in it, and every later layer
# reads it, together with what the model itself has written there.
#
# ## 2. Write
#
# A hook is a function `(activation, hook) -> activation`. What it returns is what the model goes on
# with. (`hook` is the place; its name is `hook.name`. Most hooks need it not.)

# %% exercise [markdown] name="adding" difficulty=2 importance=3 minutes=10
# ### Add a vector to every token
#
# Write `adding(v)`. It gives back a hook that adds the vector `v`, `[d_model]`, to every token. The
# tensor that it is given must stay as it is: other parts of the model, and a cache, may hold it still.

# %% hint [markdown]
# A function defined inside another one remembers `v`. Return that inner function, without calling it.

# %% hint [markdown]
# `activation + v` is a new tensor: `v` is added to the last axis of every token. `activation += v` is not.


# %% stub
def adding(v):
    """A hook that adds v to every token."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="wrote into the tensor"
def adding(v):
    def hook(activation, hook=None):
        activation += v
        return activation

    return hook


# %% wrong says="returns nothing"
def adding(v):
    def hook(activation, hook=None):
        activation + v

    return hook


# %% wrong says="push alone"
def adding(v):
    def hook(activation, hook=None):
        return v.expand_as(activation)

    return hook


# %% wrong says="should give back a hook"
def adding(v):
    return v


# %% wrong says="last token alone"
def adding(v):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, -1] += v
        return steered

    return hook


# %% solution
def adding(v):
    """A hook that adds v to every token."""

    def hook(activation, hook=None):
        return activation + v

    return hook


# %% [markdown]
# The model picks the next token by comparing the last activation with a vector for each word. So a push
# along the vector of one word should make that word likelier. How long must the push be?

# %%
# The last token of " great": in a model with small tokens the word may have several.
great = model.tokenizer(" great", add_special_tokens=False)["input_ids"][-1]
toward_great = model.W_U[:, great] / model.W_U[:, great].norm()
place = f"blocks.{n_layers - 1}.hook_resid_post"
size = float(lengths(cache, n_layers - 1)[-1])


def with_push(share):
    hook = adding(share * size * toward_great)
    return model.run_with_hooks(tokens, fwd_hooks=[(place, hook)])


pd.DataFrame({share: likeliest(model, with_push(share)) for share in (0.0, 0.1, 0.3, 1.0)})

# %% exercise [markdown] name="adding_from" difficulty=2 importance=3 minutes=10
# ### Only from some token on
#
# Steering often begins where the response begins. Write `adding_from(v, first)`: a hook that adds `v`
# to the tokens at positions `first`, `first + 1`, ... of every text, and to no other.

# %% hint [markdown]
# Make a copy with `.clone()` and write into a slice of it. Which of the three axes holds the positions?

# %% hint [markdown]
# `steered[:, first:] += v`. The first colon is the axis of texts; positions count from 0.


# %% stub
def adding_from(v, first):
    """A hook that adds v from position `first` on."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="Wrong axis"
def adding_from(v, first):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[first:] += v
        return steered

    return hook


# %% wrong says="Off by one"
def adding_from(v, first):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, first + 1 :] += v
        return steered

    return hook


# %% wrong says="up to that position"
def adding_from(v, first):
    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, :first] += v
        return steered

    return hook


# %% wrong says="wrote into the tensor"
def adding_from(v, first):
    def hook(activation, hook=None):
        steered = activation
        steered[:, first:] += v
        return steered

    return hook


# %% solution
def adding_from(v, first):
    """A hook that adds v from position `first` on."""

    def hook(activation, hook=None):
        steered = activation.clone()
        steered[:, first:] += v
        return steered

    return hook


# %% [markdown]
# A token sees only what stands before it. So a push at position 3 moves the predictions after position
# 3 and those that follow, and never an earlier one. Read that off the table.

# %%
late = [(f"blocks.{middle}.hook_resid_post", adding_from(size * toward_great, 3))]
moved = (model.run_with_hooks(tokens, fwd_hooks=late) - logits)[0].norm(dim=-1)
assert (moved[:3] == 0).all()
pd.DataFrame({"token": words, "how far its prediction moved": moved.tolist()}).T

# %% [markdown]
# ## 3. Leave no trace
#
# `model.add_hook(name, hook)` leaves the hook on the model until `model.reset_hooks()` takes it off. In
# a notebook a forgotten hook is a nightmare: every later cell is steered, and nothing says so.
# `model.run_with_hooks(...)` and `with model.hooks(fwd_hooks=[...]):` take it off by themselves.

# %% exercise [markdown] name="run_steered" difficulty=1 importance=3 minutes=5
# ### Run once with a hook
#
# Write `run_steered(model, tokens, name, hook)`: the logits of one pass with the hook at that place.
# Afterwards the model must be as before, **even if the hook raises an error**.

# %% hint [markdown]
# Which of the three ways above cleans up by itself, whatever happens?

# %% hint [markdown]
# `fwd_hooks` is a list of pairs: `[(name, hook)]`. `run_with_hooks` returns the logits.


# %% stub
def run_steered(model, tokens, name, hook):
    """The logits with a hook; the model is left as it was."""
    ...


# %% wrong says="hook is still on the model"
def run_steered(model, tokens, name, hook):
    model.add_hook(name, hook)
    return model(tokens)


# %% wrong says="if the hook raises an error"
def run_steered(model, tokens, name, hook):
    model.add_hook(name, hook)
    logits = model(tokens)
    model.reset_hooks()
    return logits


# %% wrong says="plain logits"
def run_steered(model, tokens, name, hook):
    with model.hooks(fwd_hooks=[(name, hook)]):
        pass
    return model(tokens)


# %% wrong says="returns nothing"
def run_steered(model, tokens, name, hook):
    model.run_with_hooks(tokens, fwd_hooks=[(name, hook)])


# %% solution
def run_steered(model, tokens, name, hook):
    """The logits with a hook; the model is left as it was."""
    return model.run_with_hooks(tokens, fwd_hooks=[(name, hook)])


# %% [markdown]
# ## 4. Take away
#
# The opposite of adding: remove whatever lies along a direction, and see what the model can no longer
# do. This is called **ablation**.

# %% exercise [markdown] name="removing" difficulty=2 importance=2 minutes=10
# ### Nothing along v any more
#
# Write `removing(v)`: a hook after which no activation has anything along `v`,
#
# $$h' = h - (h \cdot u)\, u, \qquad u = v / \lVert v \rVert.$$
#
# `v` may have any length.

# %% hint [markdown]
# `activation @ u` is one number for each token, `[texts, positions]`: how much of u is in it.

# %% hint [markdown]
# To multiply a number for each token with a vector, give it an axis more: `(activation @ u)[..., None] * u`.


# %% stub
def removing(v):
    """A hook that takes out what lies along v."""
    u = ...

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="bring it to length 1"
def removing(v):
    def hook(activation, hook=None):
        return activation - (activation @ v)[..., None] * v

    return hook


# %% wrong says="same vector from every token"
def removing(v):
    u = v / v.norm()

    def hook(activation, hook=None):
        return activation - u

    return hook


# %% wrong says="You added"
def removing(v):
    u = v / v.norm()

    def hook(activation, hook=None):
        return activation + (activation @ u)[..., None] * u

    return hook


# %% wrong says="often a wrong axis"
def removing(v):
    u = v / v.norm()

    def hook(activation, hook=None):
        return activation - (activation @ u) * u

    return hook


# %% solution
def removing(v):
    """A hook that takes out what lies along v."""
    u = v / v.norm()

    def hook(activation, hook=None):
        return activation - (activation @ u)[..., None] * u

    return hook


# %%
removed = run_steered(model, tokens, place, removing(toward_great))
plain_p, removed_p = (some[0, -1].softmax(dim=-1)[great] for some in (logits, removed))
print(f"P(great): {float(plain_p):.5f}; with nothing along it: {float(removed_p):.5f}")

# %% [markdown]
# Did it fall, as you expected? Look at the sign of what was removed, `cache[place][0, -1] @ toward_great`:
# where a word does not fit, the activation lies on the *other* side of its vector, and to remove that
# makes the word likelier.
#
# ## 5. Read the prediction at every layer
#
# The model turns the stream after its last layer into predictions: a last norm (`model.ln_final`), then
# a comparison with each word (`model.unembed`). Nothing forbids to do the same with the stream after an
# *earlier* layer. This is the **logit lens**: what would the model say if it stopped here?

# %% exercise [markdown] name="lens" difficulty=1 importance=2 minutes=5
# ### The logit lens
#
# Write `lens(model, h)`: the logits that belong to activations `h`, `[texts, positions, d_model]`.

# %% hint [markdown]
# Two steps, and you have read their names just now.

# %% hint [markdown]
# Both are called like functions: the norm first, then `model.unembed(...)` of what comes out.


# %% stub
def lens(model, h):
    """The logits if the model stopped at h, [texts, positions, vocabulary]."""
    ...


# %% wrong says="The last norm is missing"
def lens(model, h):
    return model.unembed(h)


# %% wrong says="these are probabilities"
def lens(model, h):
    return model.unembed(model.ln_final(h)).softmax(dim=-1)


# %% wrong says="only normalised"
def lens(model, h):
    return model.ln_final(h)


# %% solution
def lens(model, h):
    """The logits if the model stopped at h, [texts, positions, vocabulary]."""
    return model.unembed(model.ln_final(h))


# %% [markdown]
# Read the columns from left to right: when does the final answer appear? In the last column the lens is
# the model itself.

# %%
stops = range(0, n_layers, max(1, n_layers // 6))
stream = {i: cache[f"blocks.{i}.hook_resid_post"] for i in [*stops, n_layers - 1]}
assert torch.allclose(lens(model, stream[n_layers - 1]), logits, atol=1e-3)
pd.DataFrame({f"after {i}": likeliest(model, lens(model, h), 4) for i, h in stream.items()})

# %% [markdown]
# ## 6. Swap
#
# Where does the model keep what it has read? Take two texts that differ in one word. Run the second,
# but put *one* activation of the first in its place: at one layer, at one token. If the prediction
# becomes that of the first text, then that activation carried the difference. This is **activation
# patching**.

# %%
GOOD, BAD = "The film was wonderful and I", "The film was terrible and I"
good_tokens, bad_tokens = model.to_tokens(GOOD), model.to_tokens(BAD)
assert good_tokens.shape == bad_tokens.shape, "choose two texts with as many tokens"
good_logits, good_cache = model.run_with_cache(good_tokens)
bad_logits = model(bad_tokens)
pd.DataFrame({GOOD: likeliest(model, good_logits), BAD: likeliest(model, bad_logits)})

# %% exercise [markdown] name="swapping" difficulty=2 importance=2 minutes=10
# ### A hook that swaps one token
#
# Write `swapping(other, position)`: a hook that puts what `other` has at one position there, and leaves
# all other positions as they are. `other` is `[texts, positions, d_model]`, from another run.

# %% hint [markdown]
# Copy, then write into one position of the copy. It is replaced, nothing is added.

# %% hint [markdown]
# `swapped[:, position] = other[:, position]`


# %% stub
def swapping(other, position):
    """A hook that takes one position from another run."""

    def hook(activation, hook=None):
        # your lines
        ...

    return hook


# %% wrong says="whole texts"
def swapping(other, position):
    def hook(activation, hook=None):
        return other.clone()

    return hook


# %% wrong says="Wrong axis"
def swapping(other, position):
    def hook(activation, hook=None):
        swapped = activation.clone()
        swapped[position] = other[position]
        return swapped

    return hook


# %% wrong says="You added"
def swapping(other, position):
    def hook(activation, hook=None):
        swapped = activation.clone()
        swapped[:, position] += other[:, position]
        return swapped

    return hook


# %% wrong says="up to that position"
def swapping(other, position):
    def hook(activation, hook=None):
        swapped = activation.clone()
        swapped[:, :position] = other[:, :position]
        return swapped

    return hook


# %% solution
def swapping(other, position):
    """A hook that takes one position from another run."""

    def hook(activation, hook=None):
        swapped = activation.clone()
        swapped[:, position] = other[:, position]
        return swapped

    return hook


# %% [markdown]
# Now at every layer and token. 0 is the second text's own prediction, 1 is that of the first. Follow the
# information: at which token is it in the first layers, and where in the last?

# %%
log_p = [some[0, -1].log_softmax(dim=-1) for some in (bad_logits, good_logits)]
axis = log_p[1] - log_p[0]


def recovered(layer, position):
    name = f"blocks.{layer}.hook_resid_pre"
    logits = run_steered(model, bad_tokens, name, swapping(good_cache[name], position))
    moved = logits[0, -1].log_softmax(dim=-1) - log_p[0]
    return float((moved @ axis) / (axis @ axis))


places = range(bad_tokens.shape[1])
grid = [[recovered(i, position) for position in places] for i in range(n_layers)]
names = [f"{i}: {word}" for i, word in enumerate(tokens_in_order(model, bad_tokens).loc["token"])]
px.imshow(
    grid,
    x=names,
    labels={"x": "token", "y": "layer", "color": "recovered"},
    color_continuous_scale="RdBu",
    color_continuous_midpoint=0,
    origin="lower",
    width=700,
    height=420,
)

# %% [markdown]
# ## 7. What changes on a bridge
#
# TransformerLens has two kinds of model. **HookedTransformer** is its own implementation, into which
# weights are copied. **TransformerBridge** wraps the model of the transformers library where it is, and
# is the only one from version 4 on. `steerlens.load` takes the bridge if it can. All exercises above
# work on both. The differences that one trips over:
#
# * **A place may have two names.** On a bridge `blocks.0.hook_resid_post` and `blocks.0.hook_out` are
#   one place, so a hook sees the other name. Do not compare `hook.name` with what you asked for.
# * **A misspelt name may be no error.** On a bridge of version 3 it is ignored without a word.
# * **Weights are left as they are.** `HookedTransformer.from_pretrained` by default *folds* layer norms
#   into the next weights and *centres* what is written to the stream. Predictions stay the same,
#   activations do not. A direction from one kind of model fits no other.

# %%
seen = []
model.run_with_hooks(
    tokens, fwd_hooks=[("blocks.0.hook_resid_post", lambda h, hook: seen.append(hook.name))]
)
print("asked for blocks.0.hook_resid_post; the hook was called at", seen[0])

# %% exercise [markdown] name="centred" difficulty=2 importance=1 minutes=10
# ### What centring does
#
# LayerNorm, the norm of GPT-2, subtracts from each activation the mean of its own `d_model` numbers
# before anything else. So that mean can be left out of the stream at once, and nothing changes. Write
# `centred(h)`: each activation less the mean of its numbers, `[texts, positions, d_model]`.

# %% hint [markdown]
# One mean for each token. Over which axis? And which shape must it have, to be subtracted?

# %% hint [markdown]
# `h.mean(dim=-1, keepdim=True)` is `[texts, positions, 1]`, which is subtracted from every number.


# %% stub
def centred(h):
    """Each activation less the mean of its own numbers."""
    ...


# %% wrong says="mean over positions"
def centred(h):
    return h - h.mean(dim=1, keepdim=True)


# %% wrong says="one mean of everything"
def centred(h):
    return h - h.mean()


# %% wrong says="standard deviation"
def centred(h):
    return (h - h.mean(dim=-1, keepdim=True)) / h.std(dim=-1, keepdim=True)


# %% wrong says="often a wrong axis"
def centred(h):
    return h - h.mean(dim=-1)


# %% solution
def centred(h):
    """Each activation less the mean of its own numbers."""
    return h - h.mean(dim=-1, keepdim=True)


# %% [markdown]
# A folded model, if your TransformerLens has one, is the demonstration model centred. And a model with
# RMSNorm (Llama, Qwen, SmolLM2) *does* take notice of the mean, so it cannot be centred.

# %%
h = cache[f"blocks.{middle}.hook_resid_post"]
same = torch.allclose(model.ln_final(h), model.ln_final(centred(h)), atol=1e-3)
print("this model's norm ignores the mean:", same)
if version("transformer-lens").startswith("3."):
    folded = steerlens.load("demo", backend="hooked", processing="fold")
    plain = steerlens.load("demo")
    text = plain.to_tokens(TEXT)
    name = "blocks.2.hook_resid_post"
    theirs, ours = (some.run_with_cache(text)[1][name] for some in (folded, plain))
    print("a folded model has other activations:", not torch.allclose(theirs, ours, atol=1e-3))
    assert torch.allclose(theirs, centred(ours), atol=1e-3)

# %% [markdown]
# ## What could go wrong
#
# * **A hook that returns nothing changes nothing**, without a word. If "steering has no effect", look
#   for the `return` first.
# * **Written in place.** `activation += v` works in many places, and in others spoils a cache or the
#   gradient. Copy, always.
# * **A hook left behind.** After an error, say `model.reset_hooks()`. If results cannot be repeated,
#   restart the kernel.
# * **A misspelt place.** Check that the hook was called: let it append to a list, as above.
# * **Positions are not columns.** Texts of different length are padded, and when a model writes with a
#   cache, a pass holds one token. Then `activation[:, 3]` is not position 3. Unit 2 meets this.
# * **The first token.** It is often a hundred times as long as others. An average with it in it is an
#   average of it.

# %%
called_at = []
wrong_name = "blocks.0.hook_resid_pots"
try:
    model.run_with_hooks(tokens, fwd_hooks=[(wrong_name, lambda h, hook: called_at.append(1))])
    print(f"{wrong_name}: no error, and the hook was called {len(called_at)} times")
except KeyError as error:
    print("refused:", error)

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M: 30 layers, so the grid of section 6 is taller
# and takes longer; the first token is far longer than others; RMSNorm takes notice of the mean.

# %% [markdown]
# ## An open experiment
#
# Which *layers* does a model need? Write a hook that sets what attention adds (`hook_attn_out`) to zero,
# and one that does the same for the MLP. Take twenty sentences, and measure for each layer how much
# worse the model predicts them (the mean of -log P of the true next token). Draw two curves over layers.
# Then replace zero by the *mean* of that activation over your sentences. Which layers look important
# only because zero is an unusual value? Write down what you expect before you look.

# %% [markdown]
# ## References
#
# - TransformerLens, [documentation](https://transformerlensorg.github.io/TransformerLens/): the names of
#   all places, and both kinds of model.
# - Elhage and others, *A Mathematical Framework for Transformer Circuits*, 2021,
#   [transformer-circuits.pub](https://transformer-circuits.pub/2021/framework/index.html): the residual
#   stream.
# - Meng and others, *Locating and Editing Factual Associations in GPT*, 2022,
#   [arXiv 2202.05262](https://arxiv.org/abs/2202.05262): swapping, as *causal tracing*.
# - Arditi and others, *Refusal in Language Models Is Mediated by a Single Direction*, 2024,
#   [arXiv 2406.11717](https://arxiv.org/abs/2406.11717): `removing`, put to use.
