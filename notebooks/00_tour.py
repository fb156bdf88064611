# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A tour of steerlens
#
# You can tell a language model "Be positive." Or you can reach inside and change the numbers it
# computes with. The first is **prompt steering**, the second **activation steering**. This notebook
# does both on the same text, and then looks at what each of them does to every single token.
#
# You should know what a transformer is: tokens go in, every layer adds something to each token's
# vector, and the last vector predicts the next token. You need not know what a hook is.
#
# Two words that return all the time:
#
# * **Activation**: the vector that one token has at one place in the model. Here the place is
#   nearly always the *residual stream*, the running sum that every layer reads from and adds to.
# * **Steering**: any change to activations while the model runs. Its weights stay as they are.

# %%
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML

import steerlens
from steerlens import CAA, ActAdd, Conversation, Site, scope
from steerlens.analysis import (
    AS_FITTED,
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

warnings.filterwarnings("ignore", message="IProgress not found")  # a progress bar we do without

SEED = 0
pd.set_option("display.max_colwidth", None)
pd.set_option("display.precision", 3)


def flush_left(table):
    """A table of texts, which read badly flush right."""
    left = 'style="text-align: left"'
    return HTML(table.to_html().replace("<td>", f"<td {left}>").replace("<th>", f"<th {left}>"))


# %% [markdown]
# ## 1. Load a model
#
# The model that comes with steerlens is a very small GPT-2 that was trained on film reviews, short
# encyclopedia articles and fairy tales. It needs no download. Do not expect good prose: it is here
# because it follows instructions such as "Be positive." a little, and runs in seconds.
#
# To use another model, set the environment variable `STEERLENS_MODEL` to a folder with a Hugging
# Face model before you start Jupyter.

# %%
model = steerlens.load(os.environ.get("STEERLENS_MODEL", "demo"))
# A chat template says how a conversation is written down. Models without one get a plain one.
model.tokenizer.chat_template = model.tokenizer.chat_template or steerlens.PLAIN
n_layers, d_model = model.cfg.n_layers, model.cfg.d_model
print(f"{n_layers} layers (0 to {n_layers - 1}), each activation is a vector of {d_model} numbers")

# %% [markdown]
# What the model reads is one row of tokens. Below is a question as it goes in: the text, and the
# special tokens of the template around it. The first token, **BOS** (beginning of sequence), stands
# before every text and carries no content. `position` counts from 0 at BOS.

# %%
question = Conversation("Review a movie you watched.")
tokens, window = steerlens.batch(model, [question])
pd.DataFrame(
    {
        "position": window.positions[0].tolist(),
        "token": [repr(model.tokenizer.decode([token])) for token in tokens[0].tolist()],
    }
).set_index("position").T

# %% [markdown]
# ## 2. Steer by prompt
#
# The plainest steering: an instruction before the question. Both columns use the same random
# numbers, so they part only where the instruction changes a prediction enough. Which words change
# first? Is the difference in opinion, or only in wording?

# %%
INSTRUCTION = "Be positive."
QUESTIONS = [
    "Review a movie you watched.",
    "Write a movie review.",
    "What did you think of the film?",
    "Review a film.",
    "Tell me about a movie you saw.",
    "Write a review of a film.",
]
options = {"max_new_tokens": 40, "temperature": 0.8, "seed": SEED}
plain = steerlens.generate(model, [Conversation(text) for text in QUESTIONS[:3]], **options)
prompted = steerlens.generate(
    model, [Conversation(text, system=INSTRUCTION) for text in QUESTIONS[:3]], **options
)
flush_left(
    pd.DataFrame({"no instruction": plain.texts, INSTRUCTION: prompted.texts}, index=QUESTIONS[:3])
)

# %% [markdown]
# ## 3. What a hook is
#
# A **hook** is a function that the model calls in the middle of its work. It is given the
# activations at one place and may return others. If it returns nothing, nothing changes. The three
# lines below use TransformerLens alone, without steerlens.
#
# The place is a name: `blocks.2.hook_resid_post` is the residual stream after (`post`) layer 2.

# %%
middle = n_layers // 2


def look(activation, hook):
    print("the hook was given", list(activation.shape), "= [texts, positions, d_model]")


with model.hooks(fwd_hooks=[(f"blocks.{middle}.hook_resid_post", look)]):
    model(tokens)

# %% [markdown]
# Now a hook that changes something. The model picks the next token by comparing the last activation
# with a vector for each word. So a push along the vector of one word should make that word likelier.
# We add the vector of " great" to every token, after the last layer, as long as the activation is.

# %%
# The last token of " great": in a model with small tokens the word may have several.
great = model.tokenizer(" great", add_special_tokens=False)["input_ids"][-1]
last_layer = n_layers - 1


def toward_great(activation, hook=None):
    push = model.W_E[great] / model.W_E[great].norm()
    return activation + push * activation.norm(dim=-1, keepdim=True)


with model.hooks(fwd_hooks=[(f"blocks.{last_layer}.hook_resid_post", toward_great)]):
    steered_logits = model(tokens)
plain_logits = model(tokens)


# %%
def top_tokens(logits, k=6):
    """The likeliest next tokens after the last position."""
    probabilities, ids = logits[0, -1].softmax(dim=-1).topk(k)
    words = [repr(model.tokenizer.decode([token])) for token in ids.tolist()]
    return [f"{word} {p:.0%}" for word, p in zip(words, probabilities.tolist(), strict=True)]


pd.DataFrame({"plain": top_tokens(plain_logits), "with the hook": top_tokens(steered_logits)})

# %% [markdown]
# That is all there is to activation steering: **a function from activations to activations, at a
# place.** In steerlens the same function becomes a `Steering` with `at(layer, function)`, and then
# it can be scaled, limited to some tokens, saved and measured. Strength 0 is off, 1 is the function
# itself. Outside the `with` block the model is as it was.

# %%
steering = steerlens.at(last_layer, toward_great)

with steering.applied(model):
    assert torch.allclose(model(tokens), steered_logits, atol=1e-4)
with (0 * steering).applied(model):
    assert torch.equal(model(tokens), plain_logits)
assert torch.equal(model(tokens), plain_logits)

# %% [markdown]
# ## 4. Two methods from the literature
#
# A push along one word's vector is a toy. Methods differ in where they get the push from.
#
# **ActAdd** (activation addition) takes *two prompts*, runs the model on both, and subtracts the
# activations, position by position. The result is added to the first few positions of the text. The
# notebook `02_act_add` builds it by hand.
#
# **CAA** (contrastive activation addition) takes *many pairs* of examples, here the same question
# answered with praise and with blame. It averages the differences to one vector and adds this vector
# to every token of the response.

# %%
positive, negative = contrast()
flush_left(
    pd.DataFrame(
        {
            "positive": [example.response for example in positive],
            "negative": [example.response for example in negative],
        }
    ).head(4)
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
flush_left(
    written.pivot(index="method", columns="sample", values="text").reindex(
        ["unsteered", "prompt", "ActAdd", "CAA"]
    )
)

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
#
# One caveat, to which section 6 and exercise 3 return: an instruction in front also moves the
# response to later positions, and what that does is part of the measured difference.

# %%
pairs = steerlens.prompted_pairs(
    model,
    QUESTIONS,
    INSTRUCTION,
    n=3,
    max_new_tokens=30,
    temperature=0.8,
    seed=SEED,
)
train_pairs, test_pairs = pairs[1::2], pairs[0::2]
table = coefficients(model, test_pairs, range(n_layers), steerings)
table.query("example == 0 and layer == @middle").groupby("method").head(3)[
    ["method", "layer", "token_index", "token", "along", "off_axis", "relative_norm"]
]

# %% [markdown]
# How to read a row. Call the change of a token's activation *delta*, and the mean change that the
# instruction makes at that layer *v*. (The mean is taken over the other examples, never over the one
# that is measured.)
#
# * **along**: how far the token was pushed in the direction of *v*. 1 is as far as the instruction
#   pushes on average, 0 is not at all, negative is the other way.
# * **off_axis**: how much of the change points elsewhere (a length, not a share).
# * **relative_norm**: the length of the whole change, compared with the activation itself.
#
# A check on the yardstick: averaged over many tokens, the instruction's own `along` must come out
# close to 1 at every layer. It is not exactly 1, because *v* comes from other examples.

# %%
prompt_rows = table[table["method"] == "prompt"]
prompt_rows.groupby("layer")["along"].agg(["mean", "std", "min", "max"]).T

# %%
assert abs(prompt_rows.loc[prompt_rows["layer"] == middle, "along"].mean() - 1) < 0.5

# %% [markdown]
# The same numbers over the text, at the layer where CAA acts. Hover over a token for its value.
# A thick underline marks the tokens that the method itself changes; those without colour were not
# measured. Look for three things:
#
# * Does the instruction push all tokens alike, or some much more than others? Which ones?
# * CAA: why has every token of the response the same colour?
# * ActAdd: which tokens does it change itself? How can it then reach the response?

# %%
coloured_text(model, test_pairs[0], 0, table, steerings, middle)

# %%
at_middle = table[(table["layer"] == middle) & (table["example"] == 0)]
spread = at_middle.groupby("method")["along"].agg(["mean", "std", "min", "max"])
# CAA adds one vector to all tokens, so at its own layer all of them have the same coefficient.
assert spread.loc["CAA", "std"] < 1e-3 * max(1, abs(spread.loc["CAA", "mean"]))
spread.round(3)

# %% [markdown]
# And at every layer: tokens downwards, layers to the right, one panel for each method. A method
# cannot change anything below the layer where it acts, so those columns are white. Above it, other
# layers react: do they keep the push, make it larger, or undo it?

# %%
figures.coefficient_heatmap(table, example=0, colour_quantile=0.98)

# %%
below = table[(table["method"] != "prompt") & (table["layer"] < middle)]
assert (below["norm"] == 0).all()

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
#
# This depends on the strength, so each method appears twice: **as fitted**, the strength its recipe
# gives, and at its **least squares** strength, the one that comes closest to the instruction at the
# first layer where the method reaches the response. It is found on the examples put aside.
#
# No method can be expected to reach 0, since even the same instruction in other words does not. So
# we draw a reference, **equivalent prompts**: other wordings of the instruction. They should have
# *as many tokens* as the original, and here is why.
#
# The demonstration model gives each position its own learned vector, as GPT-2 does. An instruction
# in front moves the response to later positions. Part of the change that we measure is only this
# move, and in early layers it is a large part. A wording of another length moves the response to yet
# other positions and would look worse than it is. (Models with rotary positions, such as Llama, feel
# the distance between tokens, not the position itself; there this part is small.)


# %%
def n_tokens(text):
    return len(model.tokenizer(text, add_special_tokens=False)["input_ids"])


wordings = ["Be happy.", "Be kind.", "Be glad.", "Be warm.", "Be cheerful.", "Be enthusiastic."]
by_length = sorted(wordings, key=lambda text: abs(n_tokens(text) - n_tokens(INSTRUCTION)))
equivalents = by_length[:2]
for text in [INSTRUCTION, *equivalents]:
    print(f"{n_tokens(text)} tokens: {text}")

# %%
entries = with_least_squares(model, steerings, train_pairs)
errors = faithfulness(
    model,
    test_pairs,
    entries,
    equivalents=[reworded(test_pairs, text) for text in equivalents],
    seed=SEED,
)
figures.relative_rmse_curve(errors)

# %% [markdown]
# Questions to put to the figure:
#
# * Where does each method, as fitted, lie above 1? There, doing nothing would resemble the
#   instruction more. It may still make the text more positive. Being *faithful* to the prompt and
#   being *effective* are two things.
# * How much does the least-squares strength help? What remains has to do with direction and with the
#   choice of tokens, and no strength can mend it. The legend gives the strength itself: near 0 it
#   says "best left off", and below 0 that the method pushes *against* the instruction's direction.
# * How low are the equivalent prompts? A method at that line is as close to the instruction as
#   another way of saying it.
# * The lower panel is the size of the instruction's own change, by which the errors are divided.
#   Where it is small, the ratio says little.

# %%
errors.pivot_table(
    index=["method", "strength"], columns="layer", values="relative_rmse", sort=False
)

# %% [markdown]
# One thing is certain. On the examples that the strength was found on, at the site of the method,
# least squares is never above 1, since strength 0 gives exactly 1 and was free to be chosen. On
# other examples this is no law: there the figure tells.

# %%
fitted_on = faithfulness(model, train_pairs, entries, layers=[middle])
caa_on_train = fitted_on.query("method == 'CAA'").set_index("strength")["relative_rmse"]
assert caa_on_train["least squares"] <= 1 + 1e-6
assert caa_on_train["least squares"] <= caa_on_train[AS_FITTED] + 1e-6
caa_on_train.to_frame()

# %% [markdown]
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
#
# What they do *not* mean: none of them says whether the text got better, or even more positive.
# They say what happened inside, on a given text. Whether the words change has to be read, or judged.

# %% [markdown]
# ---
# # Exercises
#
# Each has a task, a cell for your answer (the repository has a solution there; cover it first) and a
# cell that checks it.
#
# ## Exercise 1: CAA as a hook of your own
#
# Write the hook that CAA is, without steerlens. It is given activations `[texts, positions,
# d_model]` of one pass over `tokens_1` (a question and the start of an answer) and returns new ones
# of the same shape, in which `direction` was added from position `first` on. `first` is the **last
# token of the prompt**, because the activation there predicts the first token of the response. Leave
# the tensor you were given as it is: other code may still hold it.

# %%
row = Conversation("Review a movie you watched.", response="This film is a story about a man who")
tokens_1, window_1 = steerlens.batch(model, [row])
direction = caa_fit.steer.direction
first = int(window_1.response[0]) - 1

# %%
# solution


def my_caa(activation, hook=None):
    steered = activation.clone()
    steered[:, first:] += direction
    return steered


# %%
given = torch.randn(1, tokens_1.shape[1], d_model)
copy = given.clone()
moved = (my_caa(given) - copy).norm(dim=-1)[0] > 0
assert torch.equal(given, copy), "the hook wrote into the tensor that it was given"
assert moved[first:].all(), "some tokens from the last prompt token on were not changed"
assert not moved[:first].any(), "tokens before the last prompt token must stay as they are"
with model.hooks(fwd_hooks=[(f"blocks.{middle}.hook_resid_post", my_caa)]):
    mine = model(tokens_1)
with caa.applied(model, window_1):
    library = model(tokens_1)
torch.testing.assert_close(mine, library, rtol=1e-4, atol=1e-4)
print("the same logits as the library's")

# %% [markdown]
# ## Exercise 2: the best strength, from activations
#
# Find the strength `s` at which CAA comes closest to the instruction at its own layer. You have, for
# every response token of the training pairs, one row each of:
#
# * `target`: what the instruction changes (prompted less plain),
# * `delta`: what CAA at strength 1 changes (steered less plain).
#
# At strength `s` CAA changes `s * delta`. Which `s` makes the sum of squares of `s * delta - target`
# smallest? Write it as one formula, with no search.

# %%
site = Site(middle)
rows = [steerlens.encode_pair(model, pair) for pair in train_pairs]
plain_rows, prompted_rows = zip(*rows, strict=True)
plain_run = steerlens.capture(model, plain_rows, site, scope=scope.generated).at(site)
prompted_run = steerlens.capture(model, prompted_rows, site, scope=scope.generated).at(site)
caa_run = steerlens.capture(model, plain_rows, site, scope=scope.generated, steering=caa).at(site)
target, delta = (prompted_run - plain_run).double(), (caa_run - plain_run).double()

# %%
# solution
s = float((delta * target).sum() / (delta * delta).sum())

# %%
error_at = {x: float((x * delta - target).square().sum()) for x in (0, s - 0.05, s, s + 0.05)}
assert error_at[s] == min(error_at.values()), "another strength comes closer"
library_s = least_squares_strength(model, caa, train_pairs, layers="site")
assert abs(s - library_s) < 1e-3 * max(1, abs(library_s)), "not the library's strength"
print(f"s = {s:.3f}, relative RMSE there {(error_at[s] / error_at[0]) ** 0.5:.3f}")

# %% [markdown]
# ## Exercise 3: how much is only the move to later positions?
#
# Section 6 says that an instruction also moves the response to later positions. Separate the two:
# choose a **neutral** instruction (one that asks for nothing positive) with exactly as many tokens as
# `INSTRUCTION`, and measure with `faithfulness` how close it comes to `INSTRUCTION` on `test_pairs`,
# as if it were an equivalent prompt. Put the text into `neutral` and the table into `moved_only`.
#
# `faithfulness` takes an empty dict for "no steerings", and `any_instruction=False` leaves its own
# neutral instruction out.

# %%
# solution
candidates = ["Be there.", "Use words.", "Be an author.", "Write a text.", "Say something."]
neutral = min(candidates, key=lambda text: abs(n_tokens(text) - n_tokens(INSTRUCTION)))
moved_only = faithfulness(
    model,
    test_pairs,
    {},
    equivalents=[reworded(test_pairs, neutral)],
    any_instruction=False,
    seed=SEED,
)

# %%
assert n_tokens(neutral) == n_tokens(INSTRUCTION), "another length is another move"
assert neutral not in [INSTRUCTION, "Be negative.", *wordings], "this one asks for an opinion"
assert moved_only["layer"].tolist() == list(range(n_layers)), "one row for every layer, please"
assert (moved_only["relative_rmse"] > 0).all(), "this is the instruction itself"
reference = errors[errors["method"] == "equivalent prompts"]
assert np.allclose(moved_only["denominator"], reference["denominator"]), "measure on test_pairs"
same = np.allclose(moved_only["relative_rmse"], reference["relative_rmse"])
assert not same, "this is the line of the equivalent prompts"
figures.relative_rmse_curve(
    pd.concat([moved_only.assign(method=f"neutral: {neutral}"), errors], ignore_index=True),
    [f"neutral: {neutral}", "equivalent prompts", "CAA"],
)

# %% [markdown]
# Read the figure from the left. Where the neutral line is low, a sentence that asks for nothing does
# nearly the same to the activations as the instruction: what was measured there is the move, and
# that there is an instruction at all. Where the neutral line rises above that of the equivalent
# prompts, the meaning of the instruction shows.
