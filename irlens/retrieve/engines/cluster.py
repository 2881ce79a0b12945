"""Work spread over a Ray cluster: actors that each hold an object, and calls that survive the loss of a node.

Knows nothing of what the object does, so that sampling, encoding and scoring can all go this way: `Cluster(make, 4)`
makes four objects by `make()`, each in a process of its own, and `cluster.call("method", *args)` runs on a free one.
"""

import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from irlens.base.errors import UserError

LOST = 20  # actors that may be lost before the work is given up


def check_ray() -> None:
    """Raises UserError where Ray is absent."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("--engine ray: ray is not installed; pip install 'irlens[ray]'")


def connect() -> None:
    """Joins the cluster of RAY_ADDRESS, else starts one on this machine. Does nothing if that was done before.

    Never the cluster that Ray saw last here: it may be long gone, or another's.
    """
    check_ray()
    import ray

    if ray.is_initialized():
        return
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            log_to_driver=False,
            include_dashboard=False if "RAY_ADDRESS" not in os.environ else None,
            logging_level="ERROR",
        )
    except ConnectionError as error:
        raise UserError(f"RAY_ADDRESS {os.environ.get('RAY_ADDRESS')}: no Ray cluster answers ({error})") from error


def resources() -> tuple[int, int]:
    """(CPU cores, GPUs) of the whole cluster."""
    import ray

    found = ray.cluster_resources()
    return int(found.get("CPU", 1)), int(found.get("GPU", 0))


class Cluster:
    """`workers` actors that each hold what `make()` returns, on `cpus` cores and `gpus` GPUs. `call` is thread-safe.

    A call whose actor dies with its process or node is done again by another; an actor in the dead one's place is asked
    for and joins when the cluster has room. Raises UserError if `make` fails, or once LOST actors are lost.
    """

    def __init__(self, make: Callable[[], object], workers: int, cpus: float = 1, gpus: float = 0):
        connect()
        self.make, self.workers, self.cpus, self.gpus = make, workers, cpus, gpus
        self.free: queue.Queue = queue.Queue()
        self.lock, self.closed, self.lost, self.actors = threading.Lock(), False, 0, []
        for _ in range(workers):
            self._start()

    def call(self, method: str, *args):
        """The result of `method(*args)` on a free actor's object; what the method raises is raised here."""
        import ray

        while True:
            actor = self.free.get()
            if isinstance(actor, BaseException):
                self.free.put(actor)  # for the next caller
                raise actor
            try:
                result = ray.get(actor.run.remote(method, *args))
            except (ray.exceptions.RayActorError, ray.exceptions.WorkerCrashedError) as error:
                self._replace(actor, error)
                continue
            except ray.exceptions.RayTaskError as error:
                self.free.put(actor)
                raise error.cause if isinstance(error.cause, UserError) else error from None
            except ray.exceptions.RayError as error:  # the node's memory of the arguments or the result is gone
                self._replace(actor, error)
                continue
            self.free.put(actor)
            return result

    def map(self, method: str, items: Iterable) -> Iterator:
        """`method(item)` of every item, in order, on all actors at once."""
        with ThreadPoolExecutor(self.workers) as pool:
            yield from pool.map(lambda item: self.call(method, item), items)

    def close(self) -> None:
        """Ends the actors; calls in flight raise."""
        import ray

        with self.lock:
            self.closed, actors = True, self.actors
            self.actors = []
        self.free.put(UserError("stopped"))
        for actor in actors:
            ray.kill(actor)

    def _start(self) -> None:
        """Asks for an actor; a thread waits for it and hands it out."""
        import ray

        # SPREAD: one node's loss should not take all of them
        actor_class = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=0, scheduling_strategy="SPREAD")(
            _Actor
        )
        actor = actor_class.remote(self.make)
        with self.lock:
            self.actors.append(actor)

        def wait() -> None:
            try:
                ray.get(actor.ready.remote())
                self.free.put(actor)
            except ray.exceptions.RayActorError as error:
                cause = getattr(error, "cause", None) or error
                if "The actor died because of an error raised in its creation task" in str(error):
                    self.free.put(UserError(f"a ray worker could not start: {str(cause).strip().splitlines()[-1]}"))
                else:
                    self._replace(actor, error)
            except Exception as error:  # Ray itself was shut down
                if not self.closed:
                    self.free.put(UserError(f"a ray worker could not start: {error}"))

        threading.Thread(target=wait, daemon=True).start()

    def _replace(self, actor, error: Exception) -> None:
        with self.lock:
            if self.closed:
                return
            self.lost += 1
            self.actors = [other for other in self.actors if other is not actor]
        if self.lost > LOST:
            self.free.put(UserError(f"{self.lost} ray workers were lost, the last to: {str(error).splitlines()[0]}"))
            return
        self._start()


class _Actor:
    """What lives in an actor's process: the object, and calls of it by name."""

    def __init__(self, make: Callable[[], object]):
        self.held = make()

    def ready(self) -> bool:
        return True

    def run(self, method: str, *args):
        return getattr(self.held, method)(*args)
