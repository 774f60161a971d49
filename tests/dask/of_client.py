"""Actions of a client: computing, persisting, moving data, coordination."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cloudpickle
import dask
import distributed
from dask import delayed
from dask.distributed import Client, Event, Future, Lock, Queue, Semaphore, Variable, get_worker
from distributed import WorkerPlugin, as_completed, fire_and_forget, wait, worker_client

from tests.dask.side import Side, error_of
from tests.support.cluster_asserts import wait_until

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import tests


def inc(x: int) -> int:
    return x + 1


def my_name(_: Any = None) -> Any:
    return get_worker().name


def name_of(dask_worker: Any) -> Any:
    return dask_worker.name


def fail(text: str) -> None:
    raise ValueError(text)


def submit(side: Side) -> Any:
    return side.client.submit(inc, 1).result()


def submit_with_a_key(side: Side) -> Any:
    future = side.client.submit(inc, 1, key="my-key")
    return future.key, future.result(), repr(future).startswith("<Future: finished, type: int")


def submit_twice(side: Side) -> Any:
    client = side.client
    return client.submit(inc, 1).key == client.submit(inc, 1).key, client.submit(inc, 1, pure=False).key == "inc"


def map_and_gather(side: Side) -> Any:
    return side.client.gather(side.client.map(inc, range(50), pure=False))


def map_of_two(side: Side) -> Any:
    return side.client.gather(side.client.map(lambda x, y: x * y, range(5), range(5)))


def map_in_batches(side: Side) -> Any:
    return side.client.gather(side.client.map(inc, range(20), batch_size=5))


def gather_nested(side: Side) -> Any:
    return side.client.gather({"a": [side.client.submit(inc, 1)], "b": side.client.submit(inc, 2)})


def gather_errors(side: Side) -> Any:
    futures = [side.client.submit(inc, 1), side.client.submit(fail, "skipped")]
    return side.client.gather(futures, errors="skip")


def chain(side: Side) -> Any:
    future = side.client.submit(inc, 1)
    for _ in range(10):
        future = side.client.submit(inc, future)
    return future.result()


def scatter(side: Side) -> Any:
    client = side.client
    return client.scatter(5).result(), client.gather(client.scatter([1, 2])), client.gather(client.scatter({"x": 1}))


@contextmanager
def keeping_replicas(client: Client) -> Iterator[None]:
    """Pause Dask's active memory manager, which drops every second copy at its next turn."""
    client.amm.stop()
    try:
        yield
    finally:
        client.amm.start()


def scatter_to_all(side: Side) -> Any:
    with keeping_replicas(side.client):
        future = side.client.scatter([1, 2, 3], broadcast=True)
        return [len(holders) for holders in side.client.who_has(future).values()]


def scatter_to_one(side: Side) -> Any:
    address = side.addresses[1]
    future = side.client.scatter("here", workers=[address], hash=False)
    return side.client.who_has([future])[future.key] == (address,)


def run(side: Side) -> Any:
    answers = side.client.run(name_of)
    return sorted(answers) == sorted(side.addresses), sorted(answers.values())


def run_on_one(side: Side) -> Any:
    return list(side.client.run(name_of, workers=[side.addresses[1]]).values())


def run_with_the_worker(side: Side) -> Any:
    return sorted(side.client.run(lambda dask_worker: (dask_worker.name, dask_worker.state.nthreads)).values())


def run_a_coroutine(side: Side) -> Any:
    async def answer(x: int) -> int:
        return x

    return list(side.client.run(answer, 3).values())


def run_with_errors(side: Side) -> Any:
    answers = side.client.run(fail, "on a worker", on_error="return")
    return [(type(error).__name__, str(error)) for error in answers.values()]


def run_and_fail(side: Side) -> Any:
    return error_of(lambda: side.client.run(fail, "on a worker"))


def run_on_scheduler(side: Side) -> Any:
    return side.client.run_on_scheduler(lambda dask_scheduler: sorted(w.name for w in dask_scheduler.workers.values()))


def run_on_scheduler_by_address(side: Side) -> Any:
    return side.client.run_on_scheduler(lambda dask_scheduler: set(dask_scheduler.aliases) >= {0, 1})


def threads(side: Side) -> Any:
    return sorted(side.client.nthreads().values()), sorted(side.client.ncores().values())


def data_of_workers(side: Side) -> Any:
    future = side.client.submit(inc, 100, workers=[side.addresses[0]])
    wait(future)
    holders = side.client.who_has(future)[future.key]
    return holders == (side.addresses[0],), future.key in side.client.has_what()[side.addresses[0]]


def workers_by_name(side: Side) -> Any:
    return [
        side.client.submit(my_name, i, workers=name, pure=False).result() for i, name in enumerate([0, 1, [0], [1]])
    ]


def workers_by_address(side: Side) -> Any:
    return [side.client.submit(my_name, pure=False, workers=[address]).result() for address in side.addresses]


def workers_by_cluster(side: Side) -> Any:
    name = list(side.cluster.workers)[0]  # noqa: RUF015 -- as a user writes it
    return side.client.submit(my_name, pure=False, workers=name).result() == name


def other_workers_allowed(side: Side) -> Any:
    return side.client.submit(inc, 1, pure=False, workers=["nowhere"], allow_other_workers=True).result()


def error_in_a_task(side: Side) -> Any:
    future = side.client.submit(fail, "in a task", pure=False)
    return error_of(future.result), future.status, type(future.exception()).__name__, future.traceback() is not None


def error_that_follows(side: Side) -> Any:
    return error_of(side.client.submit(inc, side.client.submit(fail, "upstream", pure=False)).result)


def retries(side: Side) -> Any:
    tries = Queue("tries", client=side.client)

    def once() -> str:
        tries.put(1)
        if tries.qsize() < 3:
            raise ValueError("not yet")
        return "done"

    return side.client.submit(once, retries=3).result(), tries.qsize()


def cancel(side: Side) -> Any:
    future = side.client.submit(inc, 5, workers=["nowhere"], pure=False)
    future.cancel()
    return future.status, error_of(future.result)[0]


def resources_of_no_worker(side: Side) -> Any:
    future = side.client.submit(inc, 5, resources={"GPU": 1}, pure=False)
    waiting = error_of(lambda: future.result(timeout=0.2))[0], future.status
    side.client.cancel(future)
    return waiting


def priority(side: Side) -> Any:
    return side.client.submit(inc, 6, priority=10, pure=False).result()


def annotated_workers(side: Side) -> Any:
    with dask.annotate(workers=[1], priority=3, retries=1):
        value = delayed(my_name)()
    return value.compute(optimize_graph=False)


def delayed_sum(side: Side) -> Any:
    return delayed(sum)([delayed(inc)(i) for i in range(10)]).compute()


def bag(side: Side) -> Any:
    import dask.bag as db

    return db.from_sequence(range(20), npartitions=4).map(inc).filter(lambda x: x % 2).sum().compute()


def array(side: Side) -> Any:
    import dask.array as da

    x = da.ones((200, 200), chunks=(100, 100))
    return float((x @ x.T).sum().compute())


def dataframe(side: Side) -> Any:
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"a": [1, 2, 1, 2], "b": [1, 2, 3, 4]}), npartitions=2)
    return frame.groupby("a").b.sum().compute().to_dict()


def shuffle(side: Side) -> Any:
    import dask.dataframe as dd
    import pandas as pd

    frame = dd.from_pandas(pd.DataFrame({"a": range(40), "b": range(40)}), npartitions=4)
    return int(frame.shuffle("a", shuffle_method="p2p").b.sum().compute())


def compute_and_persist(side: Side) -> Any:
    parts = [delayed(inc)(i) for i in range(3)]
    return side.client.gather(side.client.compute(parts)), dask.compute(*side.client.persist(parts))


def get_a_graph(side: Side) -> Any:
    return side.client.get({"x": 1, "y": (inc, "x")}, "y")


def variable(side: Side) -> Any:
    variable = Variable("a-variable", client=side.client)
    variable.set(3)
    return variable.get(), side.client.submit(lambda: Variable("a-variable").get(), pure=False).result()


def variable_of_a_future(side: Side) -> Any:
    variable = Variable("a-future", client=side.client)
    variable.set(side.client.submit(inc, 41))
    return variable.get().result()


def queue(side: Side) -> Any:
    queue = Queue("a-queue", maxsize=3, client=side.client)
    side.client.submit(lambda: [Queue("a-queue").put(i) for i in range(2)], pure=False).result()
    return queue.qsize(), queue.get(), queue.get(), error_of(lambda: queue.get(timeout=0.1))[0]


def lock(side: Side) -> Any:
    lock = Lock("a-lock")
    taken = lock.acquire(timeout=1), lock.locked()
    refused = side.client.submit(lambda: Lock("a-lock").acquire(timeout=0.1), pure=False).result()
    lock.release()
    return taken, refused, lock.locked()


def semaphore(side: Side) -> Any:
    semaphore = Semaphore(max_leases=1, name="a-semaphore", scheduler_rpc=side.client.scheduler, loop=side.client.loop)
    got = semaphore.acquire(timeout=1), semaphore.acquire(timeout=0.1), semaphore.get_value()
    return got, semaphore.release(), semaphore.close()


def event(side: Side) -> Any:
    event = Event("an-event", client=side.client)
    future = side.client.submit(lambda: Event("an-event").wait(timeout=90), pure=False)
    before = event.is_set()
    event.set()
    return before, future.result(), event.is_set()


class Counter:
    n = 0

    def add(self, k: int) -> int:
        self.n += k
        return self.n


def actor(side: Side) -> Any:
    counter = side.client.submit(Counter, actor=True).result()
    return [counter.add(i).result() for i in (1, 2, 3)], counter.n


def datasets(side: Side) -> Any:
    client = side.client
    client.publish_dataset(side.client.submit(inc, 1), name="a-dataset")
    found = client.get_dataset("a-dataset").result(), "a-dataset" in client.list_datasets()
    again = error_of(lambda: client.publish_dataset(1, name="a-dataset"))
    client.unpublish_dataset("a-dataset")
    return found, again, "a-dataset" in client.list_datasets(), error_of(lambda: client.get_dataset("a-dataset"))


def dataset_for_another_client(side: Side) -> Any:
    side.client.publish_dataset(shared=side.client.submit(inc, 7))
    with Client(side.cluster, set_as_default=False) as client:
        value = client.get_dataset("shared").result()
    side.client.unpublish_dataset("shared")
    return value


def future_by_name(side: Side) -> Any:
    kept = side.client.submit(inc, 8, key="by-name")
    return Future("by-name", client=side.client).result(), kept.result()


def fire_and_forget_task(side: Side) -> Any:
    event = Event("fired", client=side.client)
    fire_and_forget(side.client.submit(lambda: Event("fired").set(), pure=False))
    return event.wait(timeout=90)


def completed(side: Side) -> Any:
    return sorted(result for _, result in as_completed(side.client.map(inc, range(6)), with_results=True))


def waited_for(side: Side) -> Any:
    futures = side.client.map(inc, range(6))
    done, left = wait(futures)
    return len(done), len(left), error_of(lambda: wait(side.client.submit(inc, 1, workers=["nowhere"]), timeout=0.1))[0]


def client_in_a_task(side: Side) -> Any:
    def nested(n: int) -> int:
        with worker_client() as client:
            return sum(client.gather(client.map(inc, range(n), pure=False)))

    return side.client.submit(nested, 4, pure=False).result()


def task_stream(side: Side) -> Any:
    with distributed.get_task_stream(client=side.client) as stream:
        side.client.gather(side.client.map(inc, range(3), pure=False))
    return len(stream.data)


def versions(side: Side) -> Any:
    found = side.client.get_versions(check=True)
    here, there = found["client"]["packages"], found["scheduler"]["packages"]
    return sorted(found), here["distributed"] == there["distributed"], len(found["workers"])


def uploaded_file(side: Side) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "brought_along.py"
        module.write_text("def answer():\n    return 42\n")
        side.client.upload_file(str(module))

    def use() -> int:
        import brought_along  # type: ignore[import-not-found]  # it exists on the workers

        return int(brought_along.answer())

    return [side.client.submit(use, pure=False, workers=[address]).result() for address in side.addresses]


class Marks(WorkerPlugin):
    def setup(self, worker: Any) -> None:
        worker.marked = True

    def teardown(self, worker: Any) -> None:
        worker.marked = False


def worker_plugin(side: Side) -> Any:
    side.client.register_plugin(Marks(), name="marks")
    on = list(side.client.run(lambda dask_worker: dask_worker.marked).values())
    side.client.unregister_worker_plugin("marks")
    return on, list(side.client.run(lambda dask_worker: dask_worker.marked).values())


def events(side: Side) -> Any:
    side.client.log_event("a-topic", {"x": 1})
    side.client.submit(lambda: get_worker().log_event("a-topic", {"x": 2}), pure=False).result()
    wait_until(lambda: len(side.client.get_events("a-topic")) == 2, 60, "both events")
    return [event["x"] for _, event in side.client.get_events("a-topic")]


def metadata(side: Side) -> Any:
    side.client.set_metadata(["a", "b"], 1)
    return side.client.get_metadata(["a", "b"]), side.client.get_metadata(["a", "c"], default=None)


def replicated(side: Side) -> Any:
    with keeping_replicas(side.client):
        future = side.client.scatter([9], hash=False)
        side.client.replicate(future, n=2)
        return [len(holders) for holders in side.client.who_has(future).values()]


def rebalanced(side: Side) -> Any:
    return side.client.rebalance(), sorted(map(len, side.client.processing().values())), side.client.call_stack()


def logs_by_client(side: Side) -> Any:
    return sorted(side.client.get_worker_logs()) == side_sorted(side), len(side.client.get_scheduler_logs()) > 0


def side_sorted(side: Side) -> list[str]:
    return sorted(side.addresses)


def representation(side: Side) -> Any:
    text = repr(side.client)
    return text.startswith(f"<Client: {side.cluster.scheduler_address!r} processes=2 threads=2, memory=")


def defaults(side: Side) -> Any:
    client = side.client
    return Client.current() is client, distributed.get_client() is client, client.cluster is side.cluster, client.status


def information(side: Side) -> Any:
    info = side.client.scheduler_info()
    return info["n_workers"], info["total_threads"], sorted(w["name"] for w in info["workers"].values())


def much_data(side: Side) -> Any:
    return len(side.client.submit(lambda data: data + data, b"x" * 2_000_000, pure=False).result())


def big_exception(side: Side) -> Any:
    class Odd(Exception):
        def __init__(self) -> None:
            super().__init__("odd")
            self.loop = lambda: None

    def odd() -> None:
        raise Odd

    return error_of(side.client.submit(odd, pure=False).result)[0]


def asynchronous_client(side: Side) -> Any:
    import asyncio

    async def compute() -> int:
        cluster = side.cluster
        security = cluster.security
        async with Client(cluster.scheduler_address, security=security, asynchronous=True) as client:
            return await client.submit(inc, 1)

    return asyncio.run(compute())


def closed_client(side: Side) -> Any:
    client = Client(side.cluster, set_as_default=False)
    client.close()
    client.close()
    return client.status, side.cluster.status.name, error_of(lambda: client.submit(inc, 1))[0]


def restart(side: Side) -> Any:
    future = side.client.scatter("lost")
    side.client.restart(timeout=600)
    return sorted(side.client.run(name_of).values()), future.status, plan_of(side)


def plan_of(side: Side) -> Any:
    wait_until(lambda: len(side.cluster.observed) == 2, 60, "both workers are known again")
    return set(side.cluster.plan) == side.cluster.observed


ACTIONS = [
    submit,
    submit_with_a_key,
    submit_twice,
    map_and_gather,
    map_of_two,
    map_in_batches,
    gather_nested,
    gather_errors,
    chain,
    scatter,
    scatter_to_all,
    scatter_to_one,
    run,
    run_on_one,
    run_with_the_worker,
    run_a_coroutine,
    run_with_errors,
    run_and_fail,
    run_on_scheduler,
    run_on_scheduler_by_address,
    threads,
    data_of_workers,
    workers_by_name,
    workers_by_address,
    workers_by_cluster,
    other_workers_allowed,
    error_in_a_task,
    error_that_follows,
    retries,
    cancel,
    resources_of_no_worker,
    priority,
    annotated_workers,
    delayed_sum,
    bag,
    array,
    dataframe,
    shuffle,
    compute_and_persist,
    get_a_graph,
    variable,
    variable_of_a_future,
    queue,
    lock,
    semaphore,
    event,
    actor,
    datasets,
    dataset_for_another_client,
    future_by_name,
    fire_and_forget_task,
    completed,
    waited_for,
    client_in_a_task,
    task_stream,
    versions,
    uploaded_file,
    worker_plugin,
    events,
    metadata,
    replicated,
    rebalanced,
    logs_by_client,
    representation,
    defaults,
    information,
    much_data,
    big_exception,
    asynchronous_client,
    closed_client,
    restart,
]
