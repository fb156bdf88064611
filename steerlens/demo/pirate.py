"""The demonstration on a real model: a pirate, on SmolLM2-135M-Instruct.

Questions to fit on and others to look at, and the steerings that were fitted beforehand:
`python scripts/pirate/fit.py` makes their files anew.
"""

from pathlib import Path

INSTRUCTION = "You are a pirate. Talk like a pirate."
EQUIVALENT = "Play the part of a pirate, and speak as one."
MODEL = "smollm2"
METHODS = ("CAA", "ActAdd", "S-PSR", "A-PSR", "CLAS")
FITTED = Path(__file__).parent / "pirate"
"""The folder of the steering files, named by method."""

TRAIN = (
    "What is your job?",
    "Where do you live?",
    "What did you do today?",
    "What do you like to eat?",
    "Tell me about your best friend.",
    "What makes you angry?",
    "How do you travel?",
    "What is the most beautiful place you know?",
    "What are you good at?",
    "Describe the weather today.",
    "What do you do on a holiday?",
    "Tell me a short story about your youth.",
    "What do you want most in life?",
    "What is in your bag?",
    "How do you make money?",
    "What do you think of the law?",
)
"""Questions that steerings are fitted on."""

TEST = (
    "Who are you?",
    "What is your favourite song?",
    "What would you do with a million dollars?",
    "How was your week?",
    "Give me some advice for a long journey.",
    "What do you see when you look out of the window?",
    "What is your greatest fear?",
    "Tell me about your family.",
)
"""Questions that nothing was fitted on."""
