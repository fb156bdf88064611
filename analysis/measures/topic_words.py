"""How often a steered model writes of a topic, by the layer that is steered.

Turner et al., arXiv 2308.10248, experiment "wedding words by layer" (E3): completions of one prompt
with the addition at each layer, of which are counted the topic words of each, and the share that
has any.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from steerlens.baselines.weights import changed
from steerlens.checks import warn_if_few
from steerlens.generation import Sampling, generate
from steerlens.prompts import Prompt
from steerlens.steering import Steering
from steerlens.types import HookedModel

from .changes import UNSTEERED, named
from .diversity import words_of
from .intervals import interval_of_mean


def topic_words_by_layer(
    model: HookedModel,
    steerings: Mapping[int, Steering],
    prompts: Sequence[Prompt],
    topic_words: Sequence[str],
    *,
    n: int = 8,
    sampling: Sampling | None = None,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per steered layer, and the unsteered model first, whose layer is -1.

    `steerings` are by layer: `{layer: ActAdd.fit(model, (" weddings", ""), layer).steering}`. All
    write `n` completions of each prompt from one seed. Columns: method, layer, count (mean of topic
    words a completion) with count_low and _high, share (of completions with any) with share_low and
    _high, words (mean a completion), n_completions, n_bootstrap, seed. 95 % bootstrap intervals
    over completions.
    """
    if not steerings or not len(prompts):
        raise ValueError("Give at least one prompt, and one steering by its layer: {3: steering}.")
    sampling = sampling or Sampling(max_new_tokens=40, temperature=1.0, seed=seed)
    topic = {word.lower() for word in topic_words}
    warn_if_few(n * len(prompts), "topic_words_by_layer", "completion")
    layer_of = {f"layer {layer}": layer for layer in steerings}
    changes = named({f"layer {layer}": steering for layer, steering in steerings.items()})
    rows = []
    for name, change in changes.items():
        with changed(model, change) as hooks:
            texts = generate(model, list(prompts), hooks, n=n, sampling=sampling).texts
        words = [words_of(text) for text in texts]
        counts = np.array([sum(word in topic for word in some) for some in words], dtype=float)
        row: dict[str, object] = {"method": name, "layer": layer_of.get(name, -1)}
        for what, values in (("count", counts), ("share", (counts > 0).astype(float))):
            low, high = interval_of_mean(values, n_bootstrap, seed)
            row |= {what: float(values.mean()), f"{what}_low": low, f"{what}_high": high}
        length = float(np.mean([len(some) for some in words]))
        rows.append({**row, "words": length, "n_completions": len(texts)})
    assert rows[0]["method"] == UNSTEERED
    return pd.DataFrame(rows).assign(n_bootstrap=n_bootstrap, seed=seed)
