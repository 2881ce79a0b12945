"""Work spread over a Ray cluster: actors that each hold an object, and calls that survive the loss of a node.

What `base.workers` is on one machine: `Cluster(make, 4)` makes four objects by `make()`, each in a process of its own,
and `cluster.call("method", *args)` runs on a free one. It is the cluster of RAY_ADDRESS, else one of this machine.
"""

import contextlib
import importlib.util
import os
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from irlens.base.errors import UserError

PATIENCE, ASKED = 20, 30  # seconds that a cluster has to make room, and how often it is asked
LOST = 20  # actors that may be lost before the work is given up


def check_ray() -> None:
    """Raises UserError where Ray is absent."""
    if importlib.util.find_spec("ray") is None:
        raise UserError("ray is not installed; pip install 'irlens[ray]'")


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


def room(count: int | None, each: int = 1) -> tuple[int, int]:
    """(workers, GPUs of one) on the cluster: one per `each` GPUs, without GPUs one per core, and no more than `count`: a
    cluster that has lost a node goes on with the others."""
    import ray

    connect()
    found = ray.cluster_resources()
    gpus = int(found.get("GPU", 0))
    most = gpus // each if gpus else int(found.get("CPU", 1))
    return max(1, min(count or most, most)), each if gpus else 0


class Cluster:
    """`count` actors that each hold what `make()` returns, on `cpus` cores and `gpus` GPUs. `call` is thread-safe.

    A call whose actor dies with its process or node is done again by another; an actor in the dead one's place is asked
    for and joins when the cluster has room. Raises UserError if `make` fails, or once LOST actors are lost.
    """

    def __init__(self, make: Callable[[], object], count: int, cpus: float = 1, gpus: float = 0):
        connect()
        self.make, self.count, self.cpus, self.gpus = make, count, cpus, gpus
        self.free: queue.Queue = queue.Queue()
        self.lock, self.closed, self.lost = threading.Lock(), False, 0
        self.actors: list = []
        for _ in range(count):
            self._start()

    def call(self, method: str, *args, seen: Callable | None = None):
        """The result of `method(*args)` on a free actor's object; what the method raises is raised here.

        An actor tells nothing meanwhile, so `seen` is not called.
        """
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
        with ThreadPoolExecutor(self.count) as pool:
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


def launch(work: Callable, argument: str, count: int | None, say: Callable[[str], None]) -> str:
    """`work(argument, say)` in `count` processes of the cluster that torch.distributed knows as one job: one per GPU, or
    core; as many as there is room for, if that is less. Returns how they ended.

    Lines are said at the end. One that dies ends the others.
    """
    connect()
    import ray
    from ray.util.placement_group import remove_placement_group
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    group, gpus = _reserved(count, say)
    made = ray.remote(num_cpus=1, num_gpus=gpus)(_Rank)
    there = PlacementGroupSchedulingStrategy(placement_group=group)
    ranks = [made.options(scheduling_strategy=there).remote() for _ in range(group.bundle_count)]
    count = len(ranks)
    try:
        address = ray.get(ranks[0].address.remote())
        said = ray.get([rank.run.remote(work, argument, i, count, *address) for i, rank in enumerate(ranks)])
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from None
        return f"with {str(error).strip().splitlines()[-1][:200]}"
    except ray.exceptions.RayError as error:
        return f"with {str(error).strip().splitlines()[0][:200]}"
    finally:
        for rank in ranks:
            ray.kill(rank)
        remove_placement_group(group)
    for line in said[0]:
        say(line)
    return "well"


def _reserved(count: int | None, say: Callable[[str], None]):
    """(a placement group of `count` processes or as many as there is room for, GPUs of each). What the cluster says that it
    has may be gone with a node, so a place that is not had in time is asked for anew."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    for _ in range(ASKED):
        most, gpus = room(None)
        if count is not None and count > most:
            say(f"the cluster has room for {most} of {count} processes")
        wanted = min(count or most, most)
        group = placement_group([{"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}] * wanted)
        try:
            ray.get(group.ready(), timeout=PATIENCE)
        except ray.exceptions.GetTimeoutError:
            remove_placement_group(group)
        else:
            return group, gpus
    raise UserError(f"the Ray cluster has had no room for {wanted} processes for {ASKED * PATIENCE} seconds")


class _Rank:
    """What lives in a process of `launch`."""

    def address(self) -> tuple[str, int]:
        """Where the others find this one: its node, and a port that is free there."""
        import socket

        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return ray.util.get_node_ip_address(), free.getsockname()[1]

    def run(self, work: Callable, argument: str, rank: int, count: int, address: str, port: int) -> list[str]:
        told = {"RANK": rank, "WORLD_SIZE": count, "LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "MASTER_PORT": port}
        os.environ |= {name: str(value) for name, value in told.items()} | {"MASTER_ADDR": address}
        said: list[str] = []
        with contextlib.suppress(SystemExit):  # how it ended is written
            work(argument, said.append)
        return said
