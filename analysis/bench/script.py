"""A SLURM array job: every element a shard of the bench, all in one folder."""

import shlex
import sys
from pathlib import Path

TEMPLATE = """\
#!/bin/bash
#SBATCH --job-name=steerlens-bench
#SBATCH --array=0-{last}
#SBATCH --cpus-per-task={cpus}
#SBATCH --mem={memory}
#SBATCH --time={time}
#SBATCH --output={folder}/slurm-%A_%a.log
#SBATCH --requeue

# A job that was stopped goes on where it was when it is queued again: what is done is kept.
# Model hubs are out of reach on most nodes, so the model must be in a local folder or cache.
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
    if shards < 1:
        raise ValueError(f"The number of shards must be at least 1; found {shards}.")
    return TEMPLATE.format(
        last=shards - 1,
        n=shards,
        cpus=cpus,
        memory=memory,
        time=time,
        folder=shlex.quote(str(Path(folder).absolute())),
        python=shlex.quote(sys.executable),
    )
