"""What the columns of the tables are called on a page, where their own names are for code."""

NAMES = {
    "along": "along the mean push",
    "baseline": "compared with",
    "coherence_high": "coherence, to",
    "coherence_low": "coherence, from",
    "denominator": "size of the prompt's change (RMS norm)",
    "example": "example",
    "gini": "Gini coefficient",
    "gini_high": "Gini, to",
    "gini_low": "Gini, from",
    "high": "to (95 %)",
    "kl_left": "KL of the prompt from it (nats a token)",
    "log_p": "log-probability of the response (nats a token)",
    "low": "from (95 %)",
    "max_shift": "largest log-probability change",
    "mean_kl": "KL from unsteered (nats a token)",
    "moved": "changed anything",
    "n_examples": "examples",
    "n_questions": "questions",
    "n_sinks": "sinks left out",
    "n_tokens": "tokens",
    "n_train": "examples for strengths",
    "norm": "norm of the change",
    "off_axis": "off the axis",
    "r2": "R²",
    "rank1_share": "share along the direction",
    "ratio": "95th / 5th percentile",
    "ratio_high": "ratio, to",
    "ratio_low": "ratio, from",
    "recovered": "share of the prompt's effect",
    "relative_norm": "change / activation",
    "relative_rmse": "relative RMSE",
    "relative_rmse_own_layer": "relative RMSE at the steered layer",
    "relative_rmse_with_sinks": "relative RMSE with sinks",
    "strength": "strength chosen",
    "strength_value": "strength",
    "token_index": "token number",
    "token_median": "median over tokens",
    "top_changed": "tokens with another likeliest successor",
    "with_sinks": "value with sinks",
}


def named(column: str) -> str:
    """The column's name in words; one that is not known has its underscores taken out."""
    return NAMES.get(column, column.replace("_", " "))
