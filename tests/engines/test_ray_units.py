"""The engine for Ray, without Ray: a job in a node's own folder, resources, wrong input."""

import socket
import sys
from types import SimpleNamespace

import pytest
from factories import make_context

from dgm_bench import __version__, provenance
from dgm_bench.catalog import load_catalog
from dgm_bench.engines import ray_nodes
from dgm_bench.engines.board import Board
from dgm_bench.engines.choice import Choice, make_engine
from dgm_bench.engines.datasets import digest_of, root_with
from dgm_bench.engines.files import needed_by, take_in
from dgm_bench.engines.ray_driver import Inbox
from dgm_bench.engines.ray_node import Order, do_here
from dgm_bench.engines.ray_nodes import Nodes, gpu_share
from dgm_bench.engines.ray_options import RayOptions, answers
from dgm_bench.engines.tasks import Job, Task, terms_of
from dgm_bench.errors import DataError, EngineError, ResultsError, UsageError
from dgm_bench.overrides import change_cells
from dgm_bench.paths import PACKAGE
from dgm_bench.planner import Machine
from dgm_bench.records import read_record

GIB = 2**30
MACHINE = Machine.here("cpu")


def order_of(results, **changes):
    """A model without weights on embedded data, as a node is told to do it."""
    settings = ('evaluation.metrics=["nll"]',)
    cell_id = "ffjord/density/gaussian/digits"
    changed = dict(text.split("=", 1) for text in settings)
    (cell,) = change_cells(load_catalog().select(cell_id), changed)
    task = Task(
        id=f"{cell.recipe.content_hash[:12]}-s0",
        cells=(cell_id,),
        seeds=(0,),
        settings=settings,
        recipe_hash=cell.recipe.content_hash,
    )
    context = make_context(results.parent, threads=1)
    fields = {
        "job": Job(task=task, terms=terms_of(context)),
        "submission": "20260101t000000-000000",
        "version": __version__,
        "source_hash": provenance.source_hash(PACKAGE),
        "command": ("dgm-bench", "run"),
        "environment": {},
        "data": {},
        "scratch": results.parent / "scratch",
    }
    return Order(**{**fields, **changes})


@pytest.fixture
def head(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    return tmp_path / "results"


def test_a_node_works_in_a_folder_of_its_own_and_all_comes_back(head):
    """The record with all that it names; the same job again finds it there, and does nothing."""
    order, told = order_of(head), []

    def tell(changes):
        told.append(list(changes))
        take_in(head, changes)
        return False

    board = Board(head / "work/submissions" / order.submission)
    do_here(order, needed_by(head, order.job.task), tell, take=None)
    state = board.state(order.job.task.id)
    assert state.state == "done", state
    (ending,) = state.records
    record = read_record(head / "runs" / ending.place)
    assert record.code.command == "dgm-bench run"
    assert not list(head.parent.glob("scratch/*"))
    told.clear()
    do_here(order, needed_by(head, order.job.task), tell, take=None)
    state = board.state(order.job.task.id)
    assert (state.records, state.earlier) == ([], [ending.place])
    assert told == [[f"work/submissions/{order.submission}/tasks/{order.job.task.id}.json"]]
    assert "scratch" not in state.model_dump_json()


def test_a_node_with_other_code_or_no_room_is_at_fault_and_not_the_run(head, monkeypatch):
    other = order_of(head, source_hash="0" * 64)
    with pytest.raises(ResultsError, match="its code is not that of the command"):
        do_here(other, {}, tell=None, take=None)

    def full(job, board, gone):
        state = SimpleNamespace(thing="/scratch/x", reason="No space left", remedy="free some")
        return SimpleNamespace(fault=SimpleNamespace(kind="ResultsError", **vars(state)))

    monkeypatch.setattr("dgm_bench.engines.worker.do", full)
    with pytest.raises(ResultsError, match="No space left"):
        do_here(order_of(head), {}, lambda changes: False, take=None)


def test_data_that_a_node_lacks_is_copied_once_a_node_and_known_by_content(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    root = tmp_path / "root"
    root.mkdir()
    (root / "x").write_bytes(b"other")
    wanted = {"x": "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}  # of "x"
    asked = []
    for _ in range(2):
        found = root_with(wanted, root, lambda place: asked.append(place) or b"x")
        assert (found / "x").read_bytes() == b"x"
    assert asked == ["x"]
    (root / "x").write_bytes(b"x")
    assert digest_of(root / "x") == wanted["x"]
    assert root_with(wanted, root, None) == root
    with pytest.raises(DataError, match="changed while it was sent"):
        root_with({"y": wanted["x"]}, root, lambda place: b"z")


def test_the_inbox_keeps_what_was_not_taken_in():
    inbox = Inbox()
    for n in range(3):
        assert not inbox.tell("t", n, {})
    assert [n for _, n, _ in inbox.take(0)[0]] == [0, 1, 2]
    assert [n for _, n, _ in inbox.take(2)[0]] == [2]
    assert [n for _, n, _ in inbox.take(2)[0]] == [2]  # the answer before was lost
    inbox.end(["t"])
    assert inbox.tell("t", 1, {})
    assert inbox.file("x") == inbox.file("x") == []
    assert inbox.take(0)[1] == ["x"]


# ------------------------------------------------------------------------ resources


def nodes_of(resources, device="cpu", threads=1, **options):
    described = [
        {"NodeID": f"n{i}", "Alive": True, "Resources": node} for i, node in enumerate(resources)
    ]
    own = SimpleNamespace(get_node_id=lambda: "n0")
    ray = SimpleNamespace(nodes=lambda: described, get_runtime_context=lambda: own)
    return Nodes(ray, RayOptions(gpu_memory=f"{options.pop('gpu', 80)}G"), threads, device)


def test_a_task_asks_for_what_it_needs_and_shuns_nodes_where_it_failed():
    nodes = nodes_of([{"CPU": 2, "memory": 8 * GIB}, {"CPU": 4, "memory": 8 * GIB}], threads=2)
    assert nodes.room == 3
    asked = nodes.asked_for("cell", GIB, ())
    assert asked == {"num_cpus": 2, "num_gpus": 0, "memory": GIB}
    shunned = nodes.asked_for("cell", None, {"n1"})
    assert shunned["label_selector"] == {"ray.io/node-id": "!in(n1)"}
    assert "label_selector" not in nodes.asked_for("cell", None, {"n0", "n1"})  # nowhere else


def test_small_models_share_a_gpu_by_memory():
    assert nodes_of([{"CPU": 8, "GPU": 1}], "cuda").asked_for("cell", GIB, ())["num_gpus"] == 0.02
    assert [gpu_share(*of) for of in ((None, GIB), (GIB, None), (2 * GIB, GIB))] == [1.0] * 3
    assert gpu_share(9 * GIB, 20 * GIB) == 0.5
    for memory in range(1, 20):  # as many as are admitted fit
        share = gpu_share(memory * GIB, 80 * GIB)
        assert int(1 / share + 1e-9) * memory <= 72


@pytest.mark.parametrize(
    ("resources", "device", "memory", "said"),
    [
        ([{"CPU": 1}], "cpu", None, "--threads 2: no node of the Ray cluster has so many CPUs"),
        ([{"CPU": 2}], "cuda", None, "--device cuda: the Ray cluster has no GPU"),
        ([{"CPU": 2, "memory": GIB}], "cpu", 2 * GIB, "a/b: needs 2 GiB of memory, and no node"),
        ([{"CPU": 2}, {"CPU": 1, "memory": GIB}], "cpu", GIB, "a/b: needs 2 CPU, .* on one node"),
    ],
)
def test_what_would_wait_for_ever_is_told(resources, device, memory, said):
    with pytest.raises(UsageError, match=said):
        nodes_of(resources, device, threads=2).asked_for("a/b", memory, ())


# ------------------------------------------------------------------------ wrong input


def test_an_address_where_no_ray_answers_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("dgm_bench.engines.ray_cluster.find_spec", str)  # installed, or as if
    monkeypatch.setattr("dgm_bench.engines.ray_cluster._ANSWER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert answers(address, 0.1) == "timed out"
        for given in (address, f"ray://{address}"):
            with pytest.raises(UsageError, match=f"{given}: no Ray answers there"):
                make_engine(Choice("ray", address=given), make_context(tmp_path), MACHINE)
    with pytest.raises(UsageError, match="no Ray answers there"):
        make_engine(Choice("ray", address="127.0.0.1:nonsense"), make_context(tmp_path), MACHINE)


def test_a_node_knows_its_smallest_gpu_also_where_ray_hides_it(monkeypatch):
    sizes = (16 * 2**30, 8 * 2**30)
    fake = SimpleNamespace(
        NVMLError=KeyError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(sizes),
        nvmlDeviceGetHandleByIndex=sizes.__getitem__,
        nvmlDeviceGetMemoryInfo=lambda size: SimpleNamespace(total=size),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    assert ray_nodes._gpu_memory() == sizes[1]
    fake.nvmlDeviceGetCount = lambda: 0
    assert ray_nodes._gpu_memory() is None
    fake.nvmlInit = {}.popitem  # no driver
    assert ray_nodes._gpu_memory() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert ray_nodes._gpu_memory() is None


def test_an_engine_that_is_not_installed_is_told_with_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr("dgm_bench.engines.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs ray: pip install 'dgm-bench\[ray\]'"):
        make_engine(Choice("ray"), make_context(tmp_path), MACHINE)


def test_a_lost_cluster_is_a_failure_and_no_mistake():
    assert EngineError("Ray", "is lost", "start it").exit_code == 1
