"""Several workers on one bench: processes of this machine, and a real Dask cluster of two."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from test_bench_run import SMALL, results

from analysis.bench import parallel
from analysis.bench.bench import Bench, work
from analysis.bench.script import slurm_script
from analysis.bench.spec import Spec
from steerlens import SteeringWarning

TINY = {**SMALL, "seeds": 1, "rules": ("harmonic", "C80")}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one worker makes."""
    folder = tmp_path_factory.mktemp("alone")
    Bench.planned(folder, Spec(**TINY))
    work(folder)
    return folder


def test_two_processes_make_the_same_as_one(alone, tmp_path):
    Bench.planned(tmp_path, Spec(**TINY))
    parallel.run(tmp_path, workers=2, shown=False)
    assert results(tmp_path) == results(alone)


def test_a_run_that_is_killed_goes_on_where_it_was(alone, tmp_path):
    Bench.planned(tmp_path, Spec(**TINY))
    command = [sys.executable, "-m", "steerlens.cli", "bench", "run", "--out", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as run:
        cells = tmp_path / "cells"
        while not (cells.exists() and len(list(cells.iterdir())) > 4):
            assert run.poll() is None, "the run ended before it could be killed"
            time.sleep(0.02)
        run.send_signal(signal.SIGKILL)
    kept = {path: path.stat().st_mtime_ns for path in cells.iterdir() if path.suffix == ".json"}
    assert Bench.of(tmp_path).plan.left()
    work(tmp_path)
    assert results(tmp_path) == results(alone)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_dask_cluster_of_two_survives_a_killed_worker(alone, tmp_path):
    distributed = pytest.importorskip("distributed")
    Bench.planned(tmp_path, Spec(**TINY))
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        killed = []

        def kill_one():
            cells = tmp_path / "cells"
            while not (cells.exists() and len(list(cells.glob("*.json"))) > 4):
                time.sleep(0.02)
            worker = next(iter(cluster.workers.values()))
            os.kill(worker.pid, signal.SIGKILL)
            killed.append(worker.pid)

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        parallel.run(
            tmp_path,
            workers=2,
            backend="dask",
            scheduler=cluster.scheduler_address,
            shown=False,
        )
        killer.join(30)
    assert killed
    assert results(tmp_path) == results(alone)


@pytest.mark.filterwarnings("ignore")
def test_a_ray_cluster_of_two_survives_a_killed_worker(alone, tmp_path):
    pytest.importorskip("ray", reason="ray is not installed: pip install 'ray[default]'")
    Bench.planned(tmp_path, Spec(**TINY))
    killed = []

    def kill_one():
        cells = tmp_path / "cells"
        while not (cells.exists() and len(list(cells.glob("*.json"))) > 4):
            time.sleep(0.02)
        found = subprocess.run(["pgrep", "-f", "ray::PoolActor"], capture_output=True, check=True)
        killed.append(int(found.stdout.split()[0]))
        os.kill(killed[0], signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    parallel.run(tmp_path, workers=2, backend="ray", shown=False)
    killer.join(30)
    assert killed
    assert results(tmp_path) == results(alone)


def test_workers_begin_again_where_a_backend_tells_of_a_death(monkeypatch):
    class ADeath(Exception):
        pass

    told = [ADeath("one"), 3]

    def all_of_them(jobs):
        assert jobs == ["job"]
        if isinstance(now := told.pop(0), ADeath):
            raise now
        return now

    monkeypatch.setattr(parallel, "_all", all_of_them)
    with pytest.warns(SteeringWarning, match="begin again on what is left"):
        assert parallel._with_restarts(["job"], 1, "loky", (ADeath,)) == 3
    told += [ADeath("two")]
    with pytest.raises(ADeath):
        parallel._with_restarts(["job"], 1, "loky")
    told += [ADeath("three")] * (parallel.RESTARTS + 1)
    with (
        pytest.warns(SteeringWarning),
        pytest.raises(RuntimeError, match=f"killed {parallel.RESTARTS + 1} times"),
    ):
        parallel._with_restarts(["job"], 1, "loky", (ADeath,))


def test_jobs_of_a_queue_make_the_same(alone, tmp_path):
    pytest.importorskip("submitit")
    Bench.planned(tmp_path, Spec(**TINY))
    made = parallel.run(tmp_path, workers=2, backend="submitit", scheduler="local", shown=False)
    assert results(tmp_path) == results(alone)
    assert made > 0
    assert list((tmp_path / "submitit").glob("*_log.out"))


def test_what_makes_no_sense_is_told(tmp_path):
    for wrong, said in (
        ({"workers": 0}, "workers"),
        ({"backend": "mpi"}, "mpi"),
        ({"shard": (4, 4)}, "0/4 to --shard 3/4"),
    ):
        with pytest.raises(ValueError, match=said):
            parallel.run(tmp_path, **wrong)


def test_the_script_is_a_shell_script_with_the_folder_quoted(tmp_path):
    folder = tmp_path / "my bench"
    text = slurm_script(folder, 3)
    assert "#SBATCH --array=0-2\n" in text
    assert f"'{folder}'" in text
    checked = subprocess.run(["bash", "-n"], input=text, text=True, check=False)
    assert checked.returncode == 0
