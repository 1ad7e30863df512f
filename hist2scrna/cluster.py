"""Tasks of a dask.distributed cluster: sent out, taken as they end; those of a lost worker run again on another."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Task = TypeVar("Task")
Result = TypeVar("Result")

# A worker may have several threads, and a task has the module, the device and the threads of its process for itself.
_ALONE = threading.Lock()


def require_client(client: Any) -> None:
    """Refuse what is no client of a dask.distributed cluster, or cannot be waited for.

    Raises
    ------
    ImportError
        If dask.distributed is not installed.
    TypeError
        If it is something else, or asynchronous.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ImportError(
            f"client= needs dask.distributed: {error}. Install it: pip install 'hist2scrna[dask]'."
        ) from error
    if not isinstance(client, Client):
        raise TypeError(
            f"Expected `client` to be a dask.distributed.Client, found {type(client).__name__}. Make one: "
            "client = dask.distributed.Client(n_workers=2, threads_per_worker=1)."
        )
    if client.asynchronous:
        raise TypeError(
            "Expected `client` to wait for results, found an asynchronous one. Leave out asynchronous=True."
        )


def run_tasks(
    client: Any, function: Callable[[Any, Task], Result], shared: Any, tasks: Sequence[Task]
) -> Iterator[tuple[int, Result]]:
    """Run `function(shared, task)` for each task on the workers, and yield number and result of each as it ends.

    The scheduler keeps what it takes to run each again, so that a worker that is killed loses nothing: dask sends its
    tasks, and what they share, to another. In one worker tasks run one after the other.

    Parameters
    ----------
    client
        Of the cluster.
    function
        A function of a module that workers can import.
    shared
        What all tasks need; sent once, and passed on between workers.
    tasks
        What each task needs alone.
    """
    from distributed import as_completed

    from hist2scrna.verbosity import settings

    with warnings.catch_warnings():
        # Dask advises to scatter instead, which is lost with the worker that holds it.
        warnings.filterwarnings("ignore", message="Sending large graph")
        common = client.submit(_itself, shared, pure=False)
        futures = {
            client.submit(_alone, function, common, task, settings.cache_dir, pure=False): number
            for number, task in enumerate(tasks)
        }
    try:
        for future in as_completed(list(futures)):
            result = future.result()
            yield futures.pop(future), result
            future.release()
    finally:
        client.cancel([*futures, common])


def _itself(value: Any) -> Any:
    return value


def _alone(function: Callable[[Any, Task], Result], shared: Any, task: Task, cache_dir: Path | None) -> Result:
    """Run a task alone in its process, with the cache of features that the caller has."""
    import dask

    from hist2scrna.verbosity import settings

    with _ALONE, dask.config.set(scheduler="synchronous"):
        before = settings.cache_dir
        settings.cache_dir = cache_dir
        try:
            return function(shared, task)
        finally:
            settings.cache_dir = before
