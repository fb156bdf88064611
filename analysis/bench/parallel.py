"""Many workers: processes of this machine, or a cluster through joblib's backends or submitit.

Every worker does the same (`bench.work`), and the folder is all that they share. So a worker that
is killed costs the cell that it was at, and the others, or the next run, make that one too.
"""

import os
import re
import warnings
from pathlib import Path
from typing import Any

from steerlens.checks import require_count
from steerlens.parsing import short
from steerlens.types import SteeringWarning

from .bench import work

BACKENDS = ("loky", "dask", "ray", "submitit")
SCHEDULED = ("dask", "submitit")
QUEUED = {"timeout_min": 12 * 60, "cpus_per_task": 4, "mem_gb": 16}
"""What a job asks the queue for; `steerlens bench script` prints a script to change."""
A_CORE = 4
"""Workers for each core of this machine, at most."""
MOST_WORKERS = MOST_SHARDS = 10_000
ADDRESS = re.compile(r"^inproc://|:\d+/?$")
RESTARTS = 5
"""How often workers that were killed are replaced before giving up."""


def run(
    folder: str | Path,
    *,
    workers: int = 1,
    backend: str = "loky",
    scheduler: str | None = None,
    shard: tuple[int, int] = (0, 1),
    shown: bool = True,
) -> int:
    """Make what is left of a bench; how many cells were made by these workers.

    `backend` is joblib's: "loky" (processes here), "dask" (the cluster of a `scheduler` address, or
    one made here), or "ray" (the running cluster, or one made here); or "submitit", which queues
    the workers as SLURM jobs (or as the `scheduler` says: "local" is processes here) and waits for
    them. One worker of loky is this process.
    """
    require_run(workers, backend, shard, scheduler)
    if workers == 1 and backend == "loky":
        return work(folder, shard, shown=shown)
    threads = max((os.cpu_count() or 1) // workers, 1) if backend == "loky" else None
    jobs = [((str(folder), shard), {"shown": shown and i == 0, "threads": threads})
            for i in range(workers)]  # fmt: skip
    if backend == "dask":
        return _on_dask(jobs, workers, scheduler)
    if backend == "submitit":
        return _on_submitit(jobs, Path(folder), scheduler)
    return _with_restarts(jobs, workers, backend, _ray_deaths() if backend == "ray" else ())


def require_run(
    workers: int, backend: str, shard: tuple[int, int], scheduler: str | None = None
) -> None:
    """ValueError for options that make no sense."""
    if backend not in BACKENDS:
        raise ValueError(f"A backend is one of {', '.join(BACKENDS)}; found {backend!r}.")
    cores = os.cpu_count() or 1
    here = backend == "loky" or (backend == "dask" and scheduler is None)
    most = A_CORE * cores if here else MOST_WORKERS
    why = f" on this machine (cores: {cores}), as each holds the model" if here else ""
    require_count("workers", workers, most, why)
    if scheduler is not None and backend not in SCHEDULED:
        raise ValueError(
            f"--scheduler is for the backends {' and '.join(SCHEDULED)}; the backend here is "
            f"{backend}. Add --backend, or leave the scheduler out."
        )
    if backend == "dask" and scheduler is not None and not ADDRESS.search(scheduler):
        raise ValueError(
            "--scheduler is the address of a Dask scheduler, such as tcp://127.0.0.1:8786; found "
            f"{short(scheduler)}."
        )
    if shard[1] > MOST_SHARDS:
        raise ValueError(f"A bench has at most {MOST_SHARDS} shards; found {short(shard[1])}.")
    if not 0 <= shard[0] < shard[1]:
        raise ValueError(
            f"Shard i of n counts from 0: --shard 0/4 to --shard 3/4; found {shard[0]}/{shard[1]}."
        )


def _with_restarts(
    jobs: list[Any], workers: int, backend: str, deaths: tuple[type[Exception], ...] = ()
) -> int:
    """Processes; one that was killed ends them all, so they begin again on what is left.

    `deaths` are what a backend raises where a worker was killed, beside joblib's own.
    """
    from joblib import parallel_config
    from joblib.externals.loky.process_executor import BrokenProcessPool

    for attempt in range(RESTARTS + 1):
        try:
            with parallel_config(backend=backend, n_jobs=workers):
                return _all(jobs)
        except (BrokenProcessPool, *deaths) as error:
            if attempt == RESTARTS:
                raise RuntimeError(
                    f"Workers were killed {RESTARTS + 1} times; what they made is kept. Is there "
                    "too little memory for so many? Give a smaller --workers."
                ) from error
            warnings.warn(
                "A worker was killed; what was made is kept, and the workers begin again on what "
                "is left.",
                SteeringWarning,
                stacklevel=3,
            )
    raise AssertionError("not reached")


def _all(jobs: list[Any]) -> int:
    """What all workers made."""
    from joblib import Parallel, delayed

    made: Any = Parallel()(delayed(work)(*given, **options) for given, options in jobs)
    return sum(made)


def _on_dask(jobs: list[Any], workers: int, scheduler: str | None) -> int:
    from joblib import parallel_config

    try:
        from dask.distributed import Client, LocalCluster
    except ImportError as error:
        raise ValueError(
            "The backend dask needs the package distributed: pip install 'steerlens[cluster]'."
        ) from error
    if scheduler is not None:
        with Client(scheduler), parallel_config(backend="dask", wait_for_workers_timeout=60):
            return _all(jobs)
    cluster = LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0")
    with cluster, Client(cluster), parallel_config(backend="dask"):
        return _all(jobs)


def _on_submitit(jobs: list[Any], folder: Path, scheduler: str | None) -> int:
    """A job of the queue for each worker; its logs are in the folder."""
    try:
        from submitit import AutoExecutor
    except ImportError as error:
        raise ValueError(
            "The backend submitit needs its package: pip install 'steerlens[cluster]'."
        ) from error
    executor = AutoExecutor(folder=folder / "submitit", cluster=scheduler)
    executor.update_parameters(name="steerlens-bench", **QUEUED)
    with executor.batch():
        queued = [executor.submit(work, *given, **options) for given, options in jobs]
    return sum(job.result() for job in queued)


def _ray_deaths() -> tuple[type[Exception], ...]:
    """Make joblib know Ray; what Ray raises where a worker was killed."""
    try:
        from ray.exceptions import RayActorError  # pyright: ignore[reportMissingImports]
        from ray.util.joblib import register_ray  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ValueError(
            "The backend ray needs the package ray, which steerlens does not install: "
            "pip install 'ray[default]'."
        ) from error
    register_ray()
    return (RayActorError,)
