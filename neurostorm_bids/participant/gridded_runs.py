"""Make sure that gridded runs are kept as int8 stores, for what reads many of them: training."""

import logging

from neurostorm_bids.derivatives.gridded_files import gridding_digest, is_complete, made_from, write_int8
from neurostorm_bids.derivatives.names import GriddedOutputs
from neurostorm_bids.encode.data_fit import measure
from neurostorm_bids.errors import NeurostormError
from neurostorm_bids.find.run import Run
from neurostorm_bids.find.source import choose_source
from neurostorm_bids.participant.locks import lock_run
from neurostorm_bids.participant.one_run import OUT_OF_MEMORY, Job
from neurostorm_bids.resample.grid import Grid
from neurostorm_bids.resample.resample import resample_run
from neurostorm_bids.runtime.outcome import Outcome
from neurostorm_bids.runtime.process import is_out_of_memory
from neurostorm_bids.runtime.progress import Progress

LOG = logging.getLogger("neurostorm")


def keep_gridded(run: Run, position: str, job: Job, grid: Grid) -> Outcome:
    """Make sure that the store of a run is there and up to date; a problem ends this run and no other.

    Parameters
    ----------
    position : str
        Which of the runs it is, such as 2/5.
    """
    progress = Progress(run.name, position)
    try:
        return Outcome(run.name, run.subject, "done" if _keep(run, job, grid, progress) else "skipped")
    except (NeurostormError, OSError) as error:
        problem = str(error)
    except Exception as error:  # a bug of ours must not stop the other runs
        LOG.debug("%s", run.name, exc_info=True)
        problem = OUT_OF_MEMORY if is_out_of_memory(error) else f"unexpected {type(error).__name__}: {error} (a bug)"
    finally:
        progress.close()
    return Outcome(run.name, run.subject, "failed", problems=(problem,))


def _keep(run: Run, job: Job, grid: Grid, progress: Progress) -> bool:
    """Write the store of a run unless it is up to date; returns whether it was written."""
    settings = job.settings
    path = settings.work / GriddedOutputs(run, grid).int8
    with lock_run(settings.out_dir, run, wait=True):
        source = choose_source(run, job.dataset, grid.template, settings.resampling)
        digest = gridding_digest(source, grid, settings.changing("gridded"))
        if made_from(path) == digest and is_complete(path):
            return False
        work_dir = settings.resources.work_dir or settings.out_dir
        seed = settings.conduct.random_seed
        gridded = resample_run(source, grid, settings.resampling, seed, work_dir, progress)
        write_int8(path, gridded, digest, job.dataset.name, measure(gridded))
    return True
