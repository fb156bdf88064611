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
# # A tour of steering
#
# You can tell a language model "Be positive." Or you can reach inside and change the numbers it computes
# with. The first is **prompt steering**, the second **activation steering**. This unit does both on the
# same text, and then looks at what each of them does to every single token.
#
# **Goals.** After this unit you can
#
# - steer a model by prompt and by two methods from the literature, and compare what it writes;
# - say what an activation and a hook are, and where in a model they are;
# - measure, for each token, how far a steering pushes it, in which direction, and how much else it does;
# - say how close a method comes to a prompt, and what that number does *not* mean.
#
# **Before.** You know what a transformer is: tokens go in, every layer adds something to each token's
# vector, and the last vector predicts the next token. You have used PyTorch a little. You need not know
# what a hook is.
#
# **Time.** 105 minutes, 55 of them for eight exercises.

# %% [markdown]
# **How exercises work.** Each has a task, a cell for your answer (it begins as a stub, with dots where your
# lines belong), and a cell that checks it. The check says "Right", or "Not yet" and why. It stops "Run All",
# because what follows builds on your answer. Below are two hints, the second one plainer, and a solution.
# You may copy a solution and go on; come back later.
#
# Two words that return all the time:
#
# * **Activation**: the vector that one token has at one place in the model. Here the place is
#   nearly always the *residual stream*, the running sum that every layer reads from and adds to.
# * **Steering**: any change to activations while the model runs. Its weights stay as they are.

# %%
import os
import tempfile
from pathlib import Path

import pandas as pd
import torch
from checks.display import flush_left, likeliest, quiet, tokens_in_order

import steerlens
from steerlens import CAA, ActAdd, Conversation, Site, scope
from steerlens.analysis import (
    Entry,
    coefficients,
    coloured_text,
    faithfulness,
    figures,
    least_squares_strength,
    reworded,
    side_by_side,
    with_least_squares,
)
from steerlens.analysis.reports.demo import contrast

quiet()
SEED = 0

# %% [markdown]
# ## 1. Load a model
#
# The model that comes with steerlens is a very small GPT-2 that was trained on film reviews, short
# encyclopedia articles and fairy tales. It needs no download. Do not expect good prose: it is here
# because it follows instructions such as "Be positive." a little, and runs in seconds.
#
# To use another model, set the environment variable `STEERLENS_MODEL` before you start Jupyter: a folder
# with a Hugging Face model, or `smollm2`.

# %%
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
middle = n_layers // 2
print(f"{n_layers} layers (0 to {n_layers - 1}), each activation is a vector of {d_model} numbers")

# %% [markdown]
# What the model reads is one row of tokens. Below is a question as it goes in: the text, and the
# special tokens of the template around it. The first token, **BOS** (beginning of sequence), stands
# before every text and carries no content. `position` counts from 0 at BOS.

# %%
tokens, window = steerlens.batch(model, [Conversation("Review a movie you watched.")])
tokens_in_order(model, tokens)

# %% exercise [markdown] name="n_tokens" difficulty=1 importance=1 minutes=5
# ### Count tokens
#
# Write `n_tokens(text)`: how many tokens the text itself has, without BOS or any other special token.
# `model.tokenizer(text, add_special_tokens=False)["input_ids"]` is the list of its token ids.

# %% hint [markdown]
# How long is that list?

# %% hint [markdown]
# `len(...)`, and do not forget `return`.


# %% stub
def n_tokens(text):
    """How many tokens the text has, an int."""
    ...


# %% wrong says="counted words"
def n_tokens(text):
    return len(text.split())


# %% wrong says="special token"
def n_tokens(text):
    return model.to_tokens(text).shape[1]


# %% wrong says="counted characters"
def n_tokens(text):
    return len(text)


# %% wrong says="returns nothing"
def n_tokens(text):
    len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


# %% solution
def n_tokens(text):
    """How many tokens the text has, an int."""
    return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


# %%
INSTRUCTION = "Be positive."
for text in (INSTRUCTION, "Review a movie you watched.", "extraordinarily"):
    print(f"{n_tokens(text)} tokens: {text}")

# %% [markdown]
# ## 2. Steer by prompt
#
# The plainest steering: an instruction before the question. Both columns use the same random
# numbers, so they part only where the instruction changes a prediction enough. Is the difference in
# opinion, or only in wording?

# %%
QUESTIONS = [
    "Review a movie you watched.",
    "Write a movie review.",
    "What did you think of the film?",
    "Review a film.",
    "Tell me about a movie you saw.",
    "Write a review of a film.",
    "Describe a film you liked.",
    "Give your opinion of a movie.",
]
options = {"max_new_tokens": 40, "temperature": 0.8, "seed": SEED}
asked = QUESTIONS[:3]
plain = steerlens.generate(model, [Conversation(text) for text in asked], **options)
told = [Conversation(text, system=INSTRUCTION) for text in asked]
prompted = steerlens.generate(model, told, **options)
flush_left(pd.DataFrame({"no instruction": plain.texts, INSTRUCTION: prompted.texts}, index=asked))

# %% exercise [markdown] name="first_difference" difficulty=1 importance=1 minutes=5
# ### Where do they part?
#
# Write `first_difference(one, other)` for two lists of words: the place, counted from 0, at which they
# first differ. If one list is the beginning of the other, it is the length of the shorter one.

# %% hint [markdown]
# Go through both at once: `for place, (a, b) in enumerate(zip(one, other)):`.

# %% hint [markdown]
# Return the place as soon as `a != b`. What is left to return after the loop?


# %% stub
def first_difference(one, other):
    """The first place at which two lists differ, an int."""
    ...


# %% wrong says="off by one"
def first_difference(one, other):
    for place, (a, b) in enumerate(zip(one, other, strict=False), 1):
        if a != b:
            return place
    return min(len(one), len(other))


# %% wrong says="how many places differ"
def first_difference(one, other):
    return sum(a != b for a, b in zip(one, other, strict=False))


# %% wrong says="returns None"
def first_difference(one, other):
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place


# %% wrong says="first place at which they are *the same*"
def first_difference(one, other):
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a == b:
            return place
    return min(len(one), len(other))


# %% solution
def first_difference(one, other):
    """The first place at which two lists differ, an int."""
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))


# %%
for question, one, other in zip(asked, plain.texts, prompted.texts, strict=True):
    place = first_difference(one.split(), other.split())
    print(f"{question:35} the first {place} words are the same")

# %% [markdown]
# After the first word that differs, everything may differ, because every next token depends on what stands
# there. This is why texts are hard to compare, and why section 5 keeps the text fixed.
#
# ## 3. What a hook is
#
# A **hook** is a function that the model calls in the middle of its work. It is given the
# activations at one place and may return others. If it returns nothing, nothing changes. The three
# lines below use TransformerLens alone, without steerlens.
#
# The place is a name: `blocks.2.hook_resid_post` is the residual stream after (`post`) layer 2.


# %%
def look(activation, hook):
    print("the hook was given", list(activation.shape), "= [texts, positions, d_model]")


with model.hooks(fwd_hooks=[(f"blocks.{middle}.hook_resid_post", look)]):
    model(tokens)

# %% [markdown]
# Now a hook that changes something. The model picks the next token by comparing the last activation
# with a vector for each word. So a push along the vector of one word should make that word likelier. How
# long should the push be? As long as the activation itself is a large push, but one that fits any model.

# %% exercise [markdown] name="pushed" difficulty=2 importance=2 minutes=10
# ### A push as long as the activation
#
# Write `pushed(activation, direction)`. To each token's activation, `[texts, positions, d_model]`, add
# `direction`, `[d_model]`, brought to the **length of that token's activation**. `direction` may have any
# length. Return a new tensor.

# %% hint [markdown]
# First bring the direction to length 1: divide by `direction.norm()`. Then multiply it with one length for
# each token.

# %% hint [markdown]
# `activation.norm(dim=-1, keepdim=True)` is `[texts, positions, 1]`: one length for each token, in a shape
# that can be multiplied with a vector.


# %% stub
def pushed(activation, direction):
    """The activations with a push of their own length along the direction."""
    ...


# %% wrong says="bring it to length 1"
def pushed(activation, direction):
    return activation + direction * activation.norm(dim=-1, keepdim=True)


# %% wrong says="one length for everything"
def pushed(activation, direction):
    return activation + direction / direction.norm() * activation.norm()


# %% wrong says="often a wrong axis"
def pushed(activation, direction):
    return activation + direction / direction.norm() * activation.norm(dim=-1)


# %% wrong says="wrote into the tensor"
def pushed(activation, direction):
    activation += direction / direction.norm() * activation.norm(dim=-1, keepdim=True)
    return activation


# %% wrong says="push alone"
def pushed(activation, direction):
    return direction / direction.norm() * activation.norm(dim=-1, keepdim=True)


# %% solution
def pushed(activation, direction):
    """The activations with a push of their own length along the direction."""
    unit = direction / direction.norm()
    return activation + unit * activation.norm(dim=-1, keepdim=True)


# %%
# The last token of " great": in a model with small tokens the word may have several.
great = model.tokenizer(" great", add_special_tokens=False)["input_ids"][-1]
last_layer = n_layers - 1


def toward_great(activation, hook=None):
    return pushed(activation, model.W_U[:, great])


with model.hooks(fwd_hooks=[(f"blocks.{last_layer}.hook_resid_post", toward_great)]):
    steered_logits = model(tokens)
plain_logits = model(tokens)
pd.DataFrame({"plain": likeliest(model, plain_logits), "pushed": likeliest(model, steered_logits)})

# %% [markdown]
# That is all there is to activation steering: **a function from activations to activations, at a
# place.** In steerlens the same function becomes a `Steering` with `at(layer, function)`, and then
# it can be scaled, limited to some tokens, saved and measured. Strength 0 is off, 1 is the function
# itself. Outside the `with` block the model is as it was.

# %%
steering = steerlens.at(last_layer, toward_great)
with steering.applied(model):
    assert torch.allclose(model(tokens), steered_logits, atol=1e-3)
with (0 * steering).applied(model):
    assert torch.equal(model(tokens), plain_logits)
assert torch.equal(model(tokens), plain_logits)

# %% [markdown]
# ## 4. Two methods from the literature
#
# A push along one word's vector is a toy. Methods differ in where they get the push from.
#
# **ActAdd** (activation addition) takes *two prompts*, runs the model on both, and subtracts the
# activations, position by position. The result is added to the first few positions of the text. Unit 2
# builds it by hand.
#
# **CAA** (contrastive activation addition) takes *many pairs* of examples, here the same question
# answered with praise and with blame. It averages the differences to one vector and adds this vector
# to every token of the response.

# %%
positive, negative = contrast()
sides = {"positive": positive, "negative": negative}
flush_left(
    pd.DataFrame({name: [one.response for one in side] for name, side in sides.items()}).head(4)
)

# %%
act_add = ActAdd.fit(model, (" wonderful", " terrible"), middle, c=4.0).steering
# Read the activations on the tokens of the answers, and write from the last token of the prompt on.
caa_fit = CAA.fit(model, contrast(), middle, read=scope.generated)
caa = caa_fit.steering.only(scope.response)
steerings = {"ActAdd": act_add, "CAA": caa}
for name, steering in steerings.items():
    print(f"{name:7} acts at {', '.join(map(str, steering.sites))}")

# %% [markdown]
# `resid_pre` is the input of a layer and `resid_post` its output; each method uses the one of its
# paper. All three kinds of steering on one question, with the same random numbers:

# %%
entries = [Entry(name, steering) for name, steering in steerings.items()]
written = side_by_side(model, QUESTIONS[:1], INSTRUCTION, entries, n=2, temperature=0.8, seed=SEED)
by_method = written.pivot(index="method", columns="sample", values="text")
flush_left(by_method.reindex(["unsteered", "prompt", "ActAdd", "CAA"]))

# %% [markdown]
# ## 5. What each of them does to each token
#
# Texts are hard to compare: change one token, and everything after it is different. So we keep the
# text fixed and look at the activations.
#
# A prompt acts on activations too. Take one response and run the model on it twice, after the
# prompt with and without the instruction. The difference, token by token and layer by layer, is
# what the instruction *did*. Run it a third time with a steering instead of the instruction, and its
# difference can be laid beside the first.
#
# The responses are written by the model under the instruction. Every second one is put aside to
# find strengths on, the others are measured.

# %%
options = {"max_new_tokens": 30, "temperature": 0.8, "seed": SEED}
pairs = steerlens.prompted_pairs(model, QUESTIONS, INSTRUCTION, n=2, **options)
train_pairs, test_pairs = pairs[1::2], pairs[0::2]
site = Site(middle)
rows = [steerlens.encode_pair(model, pair) for pair in train_pairs]
plain_rows, prompted_rows = zip(*rows, strict=True)


def run(rows, steering=None):
    """The activations of all response tokens at one layer, [tokens, d_model]."""
    return steerlens.capture(model, rows, site, scope=scope.generated, steering=steering).at(site)


plain_run, prompted_run, caa_run = run(plain_rows), run(prompted_rows), run(plain_rows, caa)
deltas = prompted_run - plain_run
v = deltas.mean(dim=0)
print(list(deltas.shape), "= [response tokens, d_model]: what the instruction did to each token")

# %% [markdown]
# Call the change of one token *delta*, and the mean of all these changes *v*: it is the direction in which
# the instruction moves tokens on average. How far does one token go along it?

# %% exercise [markdown] name="along" difficulty=2 importance=3 minutes=10
# ### How far along?
#
# Write `along(deltas, v)`: for each row of `deltas`, `[tokens, d_model]`, the number a for which `a * v` is
# what lies in the direction of v, `[tokens]`. It is 1 if a token was moved by just `v`, 2 if twice as far,
# 0 if at a right angle to it, and negative if the other way.

# %% hint [markdown]
# `deltas @ v` grows with the length of v. By what must you divide, so that `along(v[None], v)` is 1?

# %% hint [markdown]
# By `v @ v`, the *square* of the length of v.


# %% stub
def along(deltas, v):
    """How far each row goes along v; 1 is as far as v, [tokens]."""
    ...


# %% wrong says="square of the length"
def along(deltas, v):
    return deltas @ v / v.norm()


# %% wrong says="cosine"
def along(deltas, v):
    return torch.cosine_similarity(deltas, v[None], dim=-1)


# %% wrong says="not divided"
def along(deltas, v):
    return deltas @ v


# %% wrong says="often a wrong axis"
def along(deltas, v):
    return v @ deltas / (v @ v)


# %% solution
def along(deltas, v):
    """How far each row goes along v; 1 is as far as v, [tokens]."""
    return deltas @ v / (v @ v)


# %% [markdown]
# A check on the yardstick: v is the mean of these very deltas, so on average they go exactly as far as v.

# %%
of_prompt = along(deltas, v)
assert abs(float(of_prompt.mean()) - 1) < 1e-3
of_caa = along(caa_run - plain_run, v)
pd.DataFrame({"prompt": of_prompt.tolist(), "CAA": of_caa.tolist()}).describe().loc[
    ["mean", "std", "min", "max"]
]

# %% exercise [markdown] name="off_axis" difficulty=2 importance=2 minutes=5
# ### And how much else?
#
# What does not lie along v points elsewhere. Write `off_axis(deltas, v)`: the **length** of what remains of
# each row without its part along v, `[tokens]`.

# %% hint [markdown]
# The part along v is `along(deltas, v)[:, None] * v`. Subtract it; then measure.

# %% hint [markdown]
# `.norm(dim=-1)` of the difference: one length for each token.


# %% stub
def off_axis(deltas, v):
    """The length of what does not lie along v, [tokens]."""
    ...


# %% wrong says="not their lengths"
def off_axis(deltas, v):
    return deltas.norm(dim=-1) - (along(deltas, v)[:, None] * v).norm(dim=-1)


# %% wrong says="should have moved by just v"
def off_axis(deltas, v):
    return (deltas - v).norm(dim=-1)


# %% wrong says="Its length is asked for"
def off_axis(deltas, v):
    return deltas - along(deltas, v)[:, None] * v


# %% wrong says="Wrong axis"
def off_axis(deltas, v):
    return (deltas - along(deltas, v)[:, None] * v).norm(dim=0)


# %% solution
def off_axis(deltas, v):
    """The length of what does not lie along v, [tokens]."""
    return (deltas - along(deltas, v)[:, None] * v).norm(dim=-1)


# %%
share = off_axis(deltas, v).square().sum() / deltas.square().sum()
print(f"{float(share):.0%} of what the instruction does (in squares) points elsewhere than v")

# %% [markdown]
# So one direction is not all of it, not even for a prompt of two words. `coefficients` measures all this at
# every layer, for every method. (There v is the mean over the *other* examples, never over the one that is
# measured, so averages come out close to 1 and not exactly.)

# %%
table = coefficients(model, test_pairs, range(n_layers), steerings)
rows = table.query("example == 0 and layer == @middle").groupby("method").head(3)
rows[["method", "layer", "token_index", "token", "along", "off_axis", "relative_norm"]]

# %% [markdown]
# * **along**: how far the token was pushed in the direction of *v*. 1 is as far as the instruction
#   pushes on average, 0 is not at all, negative is the other way.
# * **off_axis**: how much of the change points elsewhere (a length, not a share).
# * **relative_norm**: the length of the whole change, compared with the activation itself.
#
# The same numbers over the text, at the layer where CAA acts. Hover over a token for its value.
# A thick underline marks the tokens that the method itself changes; those without colour were not
# measured. Look for three things:
#
# * Does the instruction push all tokens alike, or some much more than others? Which ones?
# * CAA: why has every token of the response the same colour?
# * ActAdd: which tokens does it change itself? How can it then reach the response?

# %%
coloured_text(model, test_pairs[0], 0, table, steerings, middle)

# %% [markdown]
# And at every layer: tokens downwards, layers to the right, one panel for each method. A method
# cannot change anything below the layer where it acts, so those columns are white. Above it, other
# layers react: do they keep the push, make it larger, or undo it?

# %%
below = table[(table["method"] != "prompt") & (table["layer"] < middle)]
assert (below["norm"] == 0).all()
figures.coefficient_heatmap(table, example=0, colour_quantile=0.98)

# %% [markdown]
# The next figure drops the text and sorts the tokens of all examples by how far they are pushed. A
# flat line means that all tokens get the same; a steep one that a few get nearly everything. At its
# own layer CAA is a staircase with a step for each example: flat within an example, and the steps
# are there because each example is measured with its own *v*. Compare it with the line of the
# instruction: that is how different the two kinds of steering are in *where* they push.

# %%
figures.sorted_strengths(table, middle)

# %% [markdown]
# ## 6. How close does a method come to the prompt?
#
# `along` looks at one direction. **Relative RMSE** (root mean square error) looks at everything: how
# far are the steered activations from the prompted ones, compared with the unsteered ones?
#
# * 0: the method puts every token exactly where the instruction puts it.
# * 1: as far off as doing nothing.
# * above 1: further off than doing nothing.

# %% exercise [markdown] name="relative_rmse" difficulty=2 importance=3 minutes=10
# ### Relative RMSE
#
# Write `relative_rmse(steered, prompted, plain)` for activations `[tokens, d_model]`:
#
# $$\sqrt{\frac{\sum \lVert \text{steered} - \text{prompted} \rVert^2}
#                {\sum \lVert \text{plain} - \text{prompted} \rVert^2}},$$
#
# one number; both sums go over all tokens.

# %% hint [markdown]
# `.square().sum()` of a difference is the sum of squares over tokens and over d_model at once.

# %% hint [markdown]
# Check yours by thinking: what does it give for `relative_rmse(plain, prompted, plain)`?


# %% stub
def relative_rmse(steered, prompted, plain):
    """How far from the prompted run, 1 being as far as the plain run; a number."""
    ...


# %% wrong says="root is missing"
def relative_rmse(steered, prompted, plain):
    return float((steered - prompted).square().sum() / (plain - prompted).square().sum())


# %% wrong says="size of the activations"
def relative_rmse(steered, prompted, plain):
    return float((steered - prompted).norm() / prompted.norm())


# %% wrong says="a ratio for each token"
def relative_rmse(steered, prompted, plain):
    ratios = (steered - prompted).norm(dim=-1) / (plain - prompted).norm(dim=-1)
    return float(ratios.mean())


# %% wrong says="upside down"
def relative_rmse(steered, prompted, plain):
    return float((plain - prompted).norm() / (steered - prompted).norm())


# %% wrong says="what the steering did"
def relative_rmse(steered, prompted, plain):
    return float((steered - plain).norm() / (prompted - plain).norm())


# %% solution
def relative_rmse(steered, prompted, plain):
    """How far from the prompted run, 1 being as far as the plain run; a number."""
    off = (steered - prompted).square().sum()
    return float((off / (plain - prompted).square().sum()).sqrt())


# %%
print(f"doing nothing: {relative_rmse(plain_run, prompted_run, plain_run):.3f}")
for strength in (0.25, 0.5, 1.0, 2.0):
    steered_run = plain_run + strength * (caa_run - plain_run)
    print(f"CAA times {strength}: {relative_rmse(steered_run, prompted_run, plain_run):.3f}")

# %% [markdown]
# It depends on the strength, so a method should be judged at its best one. At its own layer CAA at
# strength s changes s times what it changes at strength 1, so you need not try strengths at all.

# %% exercise [markdown] name="best_strength" difficulty=3 importance=2 minutes=5
# ### The best strength, in one formula
#
# `target` is what the instruction changes, `delta` is what the method changes at strength 1, both
# `[tokens, d_model]`. Write `best_strength(delta, target)`: the number s for which the sum of squares of
# `s * delta - target` is smallest. No search: set the derivative with respect to s to 0.

# %% hint [markdown]
# The sum is s² ⟨delta, delta⟩ - 2 s ⟨delta, target⟩ + ⟨target, target⟩, where ⟨a, b⟩ is `(a * b).sum()`.

# %% hint [markdown]
# Its derivative is 2 s ⟨delta, delta⟩ - 2 ⟨delta, target⟩. Solve for s.


# %% stub
def best_strength(delta, target):
    """The strength at which s * delta comes closest to target, a number."""
    ...


# %% wrong says="upside down"
def best_strength(delta, target):
    return float((target * target).sum() / (delta * target).sum())


# %% wrong says="cosine"
def best_strength(delta, target):
    return float((delta * target).sum() / (delta.norm() * target.norm()))


# %% wrong says="divided by the target"
def best_strength(delta, target):
    return float((delta * target).sum() / (target * target).sum())


# %% wrong says="ratio of lengths"
def best_strength(delta, target):
    return float(target.norm() / delta.norm())


# %% solution
def best_strength(delta, target):
    """The strength at which s * delta comes closest to target, a number."""
    return float((delta * target).sum() / (delta * delta).sum())


# %%
delta = caa_run - plain_run
s = best_strength(delta, deltas)
at_best = relative_rmse(plain_run + s * delta, prompted_run, plain_run)
by_library = least_squares_strength(model, caa, train_pairs, layers="site")
print(f"s = {s:.3f} (the library: {by_library:.3f}), relative RMSE there {at_best:.3f}")
assert at_best <= 1 + 1e-6
assert abs(s - by_library) < 1e-2 * max(1, abs(by_library))

# %% [markdown]
# On the examples that s was found on, it is never above 1, since strength 0 gives exactly 1 and was free to
# be chosen. And how low can one hope to get? Not to 0, since even the same instruction in other words does
# not. So the figure below has a reference, **equivalent prompts**: other wordings, with *as many tokens*,
# because the demonstration model gives each position its own learned vector, as GPT-2 does. An instruction in
# front moves the response to later positions, and part of the change is only this move. (Models with rotary
# positions, such as Llama, feel the distance between tokens; there this part is small.)

# %%
wordings = ["Be happy.", "Be kind.", "Be glad.", "Be warm.", "Be cheerful.", "Be enthusiastic."]
by_length = sorted(wordings, key=lambda text: abs(n_tokens(text) - n_tokens(INSTRUCTION)))
equivalents = [reworded(test_pairs, text) for text in by_length[:2]]
entries = with_least_squares(model, steerings, train_pairs)
errors = faithfulness(model, test_pairs, entries, equivalents=equivalents, seed=SEED)
figures.relative_rmse_curve(errors)

# %% [markdown]
# Questions to put to the figure:
#
# * Where does each method, as fitted, lie above 1? There, doing nothing would resemble the
#   instruction more. It may still make the text more positive. Being *faithful* to the prompt and
#   being *effective* are two things.
# * How much does the least-squares strength help? What remains has to do with direction and with the
#   choice of tokens, and no strength can mend it. Near 0 it says "best left off", and below 0 that the
#   method pushes *against* the instruction's direction.
# * How low are the equivalent prompts? A method at that line is as close to the instruction as
#   another way of saying it.
# * The lower panel is the size of the instruction's own change, by which the errors are divided.
#   Where it is small, the ratio says little.

# %% exercise [markdown] name="neutral" difficulty=1 importance=2 minutes=5
# ### A prompt that asks for nothing
#
# How much of what was measured is only the move to later positions, and that there is an instruction at all?
# Put into `neutral` an instruction with **exactly as many tokens** as `INSTRUCTION`, that asks for **nothing
# positive** (nor negative). `n_tokens` counts for you.

# %% hint [markdown]
# Something dull, such as "Be there." or "Use words.". Count its tokens.

# %% hint [markdown]
# Write down five candidates and print `n_tokens` of each.

# %% stub
neutral = ...

# %% wrong says="another move"
neutral = "Write some kind of text about it, as you like."

# %% wrong says="an opinion"
neutral = "Be happy."

# %% wrong says="instruction itself"
neutral = INSTRUCTION

# %% wrong says="should be a text"
neutral = ["Be there."]

# %% solution
candidates = ["Be there.", "Use words.", "Be an author.", "Write a text.", "Say something."]
neutral = min(candidates, key=lambda text: abs(n_tokens(text) - n_tokens(INSTRUCTION)))

# %%
asks_nothing = [reworded(test_pairs, neutral)]
options = {"equivalents": asks_nothing, "any_instruction": False, "seed": SEED}
moved_only = faithfulness(model, test_pairs, {}, **options).assign(method=f"neutral: {neutral}")
figures.relative_rmse_curve(
    pd.concat([moved_only, errors], ignore_index=True),
    [f"neutral: {neutral}", "equivalent prompts", "CAA"],
)

# %% [markdown]
# Read the figure from the left. Where the neutral line is low, a sentence that asks for nothing does
# nearly the same to the activations as the instruction. Where it rises above that of the equivalent
# prompts, the meaning of the instruction shows.
#
# ## 7. Save a steering, load it again
#
# A steering is a small file of numbers (safetensors, never pickle). It records which model it was
# fitted on by a fingerprint of the weights. Loading it for another model is an error that says what
# differs.

# %%
with tempfile.TemporaryDirectory() as folder:
    path = caa.save(Path(folder) / "caa.safetensors")
    print(f"{path.name}: {path.stat().st_size} bytes")
    again = steerlens.load_steering(path, model)
with caa.applied(model, window):
    before = model(tokens)
with again.applied(model, window):
    assert torch.equal(model(tokens), before)
print(f"fitted on a model with the fingerprint {again.origin.model.fingerprint}")

# %% [markdown]
# ## 8. What the numbers mean, in plain words
#
# | number | plain words |
# |---|---|
# | `along` = 1 | this token was pushed as far, in the instruction's direction, as the instruction pushes on average |
# | `along` = 0 | not pushed in that direction; it may have been pushed in another one |
# | `along` < 0 | pushed the opposite way |
# | `off_axis` | the part of the push that the instruction's mean direction does not explain |
# | relative RMSE = 1 | as unlike the prompted run as an unsteered run |
# | relative RMSE of equivalent prompts | as close as one can reasonably ask for |
# | strength 0, 1, 2 | off; as fitted; twice the push |

# %% [markdown]
# ## What could go wrong
#
# * **Reading too much into a number.** None of these says whether the text got better, or even more positive.
#   They say what happened inside, on a given text. Whether the words change has to be read, or judged.
# * **Comparing single texts.** With other random numbers the same steering writes something else. Compare many
#   texts, or fix the text and compare activations.
# * **Measuring where the strength was found.** On other examples the best strength need not be the best.
# * **A small denominator.** Where the instruction itself changes little, every ratio is large.
# * **Another length is another position.** An instruction of five tokens moves the response by five.

# %% [markdown]
# ### On another model
#
# `STEERLENS_MODEL=smollm2` runs this unit on SmolLM2-135M: it follows the instruction better, has rotary
# positions (the neutral line should be less low in early layers), and takes some minutes. If its chat
# template puts a system prompt of its own before every question, a warning says so.

# %% [markdown]
# ## An open experiment
#
# Take another pair of wishes, such as "Be brief." and "Write in rhymes.", and other words for ActAdd. Which of
# the two methods comes closer to the prompt, at its best strength, and at which layer? Before you run it, write
# down what you expect and why. Then repeat with another seed: does your conclusion survive?

# %% [markdown]
# ## References
#
# - Turner and others, 2023, [arXiv 2308.10248](https://arxiv.org/abs/2308.10248): ActAdd.
# - Rimsky and others, 2023, [arXiv 2312.06681](https://arxiv.org/abs/2312.06681): CAA.
# - In the documentation: `docs/methods/` has a page for each method, `docs/figures.md` all figures.
