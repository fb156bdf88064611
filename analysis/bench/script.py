"""A SLURM array job: every element a shard of the bench, all in one folder."""

import shlex
import sys
from pathlib import Path

from steerlens.checks import require_count
from steerlens.parsing import short

from .parallel import MOST_SHARDS

MOST_CPUS = 1000

TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name=steerlens-bench
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time={time}
#SBATCH --output={logs}
#SBATCH --requeue

# A job that was stopped goes on where it was when it is queued again: what is done is kept.
# Model hubs are out of reach on most nodes, so the model must be in a local folder or cache.
cd {here}
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

srun {python} -m steerlens.cli bench run --out {folder} --shard "$SLURM_ARRAY_TASK_ID/{n}"

# When all are done: {python} -m steerlens.cli bench collect --out {folder}
"""


def slurm_script(
    folder: str | Path,
    shards: int,
    *,
    cpus: int = 4,
    memory: str = "16G",
    time: str = "12:00:00",
) -> str:
    """The script, for `sbatch`; its paths are absolute, its Python this one."""
    for name, number, most in (("shards", shards, MOST_SHARDS), ("cpus", cpus, MOST_CPUS)):
        require_count(name, number, most)
    for name, text, example in (("memory", memory, "16G"), ("time", time, "12:00:00")):
        if not text or any(letter.isspace() for letter in text):
            raise ValueError(f"--{name} is one word, such as {example}; found {short(text)}.")
    place = str(Path(folder).absolute())
    if any(letter in place for letter in "\n\r\\\"'"):
        raise ValueError(f"SLURM reads no folder with quotes or line breaks in it: {short(place)}.")
    return TEMPLATE.format(
        last=shards - 1,
        n=shards,
        cpus=cpus,
        memory=memory,
        time=time,
        folder=shlex.quote(place),
        logs=f'"{place.replace("%", "%%")}/slurm-%A_%a.log"',
        here=shlex.quote(str(Path.cwd())),
        python=shlex.quote(sys.executable),
    )
