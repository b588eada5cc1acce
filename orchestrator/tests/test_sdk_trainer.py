"""The trainer's client, against a small trainer in this process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import fields
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from tuneproof.sdk import Hyperparameters, RunInfo, RunSpec, TrainerClient
from tuneproof.servicekit.calls import CallInterceptor
from tuneproof.servicekit.errors import InvalidInput, NotFound, Unavailable, WrongState
from tuneproof.servicekit.paging import page
from tuneproof.servicekit.server import Service, make_server
from tuneproof.trainer.v1 import trainer_pb2 as pb
from tuneproof.trainer.v1 import trainer_pb2_grpc as stubs

pytestmark = [pytest.mark.long, pytest.mark.timeout(20)]

SPEC = RunSpec(
    adapter_name="short",
    data_path="datasets/ab.jsonl",
    data_digest="sha256:ab",
    base_model="toy",
    seed=7,
    hyperparameters=Hyperparameters(
        method="lora",
        rank=8,
        alpha=24.0,
        dropout=0.25,
        target_modules=("q_proj",),
        skip_modules=("layers.0.self_attn.q_proj",),
        epochs=3.0,
        max_steps=40,
        effective_batch_size=32,
        micro_batch_size=4,
        learning_rate=1e-3,
        schedule="cosine",
        warmup_ratio=0.0,
        max_grad_norm=1.0,
        max_length=512,
        gradient_checkpointing=True,
        preset="paper",
        use_rslora=True,
        target_parameters=("mlp.experts.down_proj",),
        packing="bfd",
        precision="bf16",
        optimizer="paged_adamw_8bit",
        validation_share=0.1,
        validation_steps=5,
        early_stopping_patience=3,
        too_long="drop",
    ),
    validation_path="datasets/cd.jsonl",
    validation_digest="sha256:cd",
    held_out_path="datasets/ef.jsonl",
    held_out_digest="sha256:ef",
    allow_leakage=True,
)


class _Trainer(stubs.TrainerServiceServicer):
    """One run of 4 steps; a watch breaks off after `break_after` messages."""

    def __init__(self) -> None:
        self.runs: dict[str, pb.Run] = {}
        self.break_after = 99
        self.breaks = "cancel"
        self.away = False
        self.asked_after: list[int] = []

    async def CreateRun(self, request, context):
        run = pb.Run(id=request.run_id, spec=request.spec, state=pb.RUN_STATE_QUEUED)
        return pb.CreateRunResponse(run=self.runs.setdefault(run.id, run))

    async def GetRun(self, request, context):
        if request.run_id == "stopping":
            await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        if request.run_id not in self.runs:
            raise NotFound(f"there is no run {request.run_id}")
        return pb.GetRunResponse(run=self.runs[request.run_id])

    async def ListRuns(self, request, context):
        runs = sorted(self.runs.values(), key=lambda run: run.id)
        some, token = page(runs, 1, request.page_token, lambda run: run.id)
        return pb.ListRunsResponse(runs=some, next_page_token=token)

    async def PlanRun(self, request, context):
        if request.spec.adapter_name == "unread":
            finding = pb.Finding(code="data", message="line 2 is not JSON", refused=True)
            return pb.PlanRunResponse(spec=request.spec, findings=[finding])
        reply = pb.PlanRunResponse(
            spec=request.spec,
            counts=pb.DataCounts(examples=24, answer_tokens=96, padding_tokens=7),
            total_steps=12,
            accumulation=2,
            devices=1,
            memory=[pb.MemoryPart(name="kept", bytes=9), pb.MemoryPart(name="adapter", bytes=2)],
            tokens_per_second=40,
            measured_runs=3,
            unquantised=["the norms"],
            findings=[pb.Finding(code="duplicate", message="2 repeat", lines=[4, 7])],
        )
        reply.duration.FromSeconds(90)
        for line in request.preview_lines:
            reply.previews.add(line=line).pieces.add(token_id=5, text="w1", learned=True)
        return reply

    async def CancelRun(self, request, context):
        run = self.runs[request.run_id]
        if run.state == pb.RUN_STATE_SUCCEEDED:
            raise WrongState("it has succeeded")
        run.state = pb.RUN_STATE_CANCELLED
        return pb.CancelRunResponse(run=run)

    async def WatchRun(self, request, context):
        self.asked_after.append(request.after_step)
        if self.away:
            await context.abort(grpc.StatusCode.CANCELLED, "stopping")
        if request.run_id not in self.runs:
            raise NotFound(f"there is no run {request.run_id}")
        for count, step in enumerate(range(request.after_step + 1, 5), 1):
            run = pb.Run(id=request.run_id, state=pb.RUN_STATE_RUNNING)
            run.progress.step, run.progress.total_steps = step, 4
            run.progress.eta.FromSeconds(4 - step)
            run.losses.add(step=step, loss=1 / step)
            if step % 2 == 0:
                run.losses[0].validation_loss = 2 / step
            if step == 4:
                run.state, run.adapter_ref = pb.RUN_STATE_SUCCEEDED, "short@sha256:ab"
            yield pb.WatchRunResponse(run=run)
            if count == self.break_after:
                if self.breaks == "cancel":
                    await context.abort(grpc.StatusCode.CANCELLED, "stopping")
                if self.breaks == "hang":
                    await asyncio.Event().wait()
                return


@pytest.fixture
def fake() -> _Trainer:
    return _Trainer()


@asynccontextmanager
async def _serving(fake: _Trainer, port: int = 0) -> AsyncIterator[int]:
    async def ready() -> None: ...

    service = Service(
        register=lambda server: stubs.add_TrainerServiceServicer_to_server(fake, server),
        descriptors=[pb.DESCRIPTOR.services_by_name["TrainerService"]],
        check_ready=ready,
    )
    server = make_server(service, CallInterceptor(service.descriptors, None), 2**20)
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


@pytest.fixture
async def client(fake):
    async with _serving(fake) as port, TrainerClient(f"127.0.0.1:{port}") as found:
        yield found


async def test_a_spec_arrives_and_comes_back_whole(client, fake):
    untouched = RunSpec("a", "b", "c")
    assert all(
        getattr(SPEC, field.name) != getattr(untouched, field.name) for field in fields(RunSpec)
    )
    given, defaults = SPEC.hyperparameters, untouched.hyperparameters
    assert all(
        getattr(given, name) != getattr(defaults, name) for name in Hyperparameters.model_fields
    )
    run = await client.create("run-1", SPEC)
    assert (run.id, run.state, run.ended) == ("run-1", "queued", False)
    assert run.spec == SPEC
    assert fake.runs["run-1"].spec.data.digest == "sha256:ab"
    sent = fake.runs["run-1"].spec.hyperparameters
    assert (sent.method, sent.schedule) == (pb.METHOD_LORA, pb.SCHEDULE_COSINE)
    assert (sent.rank, sent.alpha) == (8, 24.0)
    assert sent.HasField("warmup_ratio")
    assert (await client.get("run-1")).spec == SPEC


async def test_a_preset_is_sent_with_its_values(client, fake):
    paper = Hyperparameters(preset="paper", rank=8)
    await client.create("run-1", RunSpec("a", "b", "c", hyperparameters=paper))
    sent = fake.runs["run-1"].spec.hyperparameters
    assert (sent.preset, sent.rank, sent.alpha) == (pb.PRESET_PAPER, 8, 16.0)
    assert not sent.HasField("max_length")


async def test_a_plan_comes_as_values(client):
    plan = await client.plan(SPEC, preview_lines=[3])
    assert plan.spec == SPEC
    assert plan.counts is not None
    assert (plan.counts.examples, plan.counts.padding_tokens) == (24, 7)
    assert (plan.total_steps, plan.accumulation, plan.seconds) == (12, 2, 90.0)
    assert list(plan.memory.items()) == [("kept", 9), ("adapter", 2)]
    assert (plan.findings[0].lines, plan.refused) == ((4, 7), False)
    assert plan.previews[0].line == 3
    assert [(piece.text, piece.learned) for piece in plan.previews[0].pieces] == [("w1", True)]


async def test_a_plan_of_data_that_cannot_be_read_says_so(client):
    plan = await client.plan(RunSpec("unread", "b", "c"))
    assert (plan.counts, plan.seconds, plan.refused) == (None, None, True)
    assert plan.findings[0].message == "line 2 is not JSON"


async def test_a_default_warm_up_is_left_to_the_trainer(client, fake):
    await client.create("run-1", RunSpec("a", "b", "c"))
    sent = fake.runs["run-1"].spec.hyperparameters
    assert not sent.HasField("warmup_ratio")
    assert not sent.HasField("method")


def unchecked(**values: str) -> RunSpec:
    return RunSpec("a", "b", "c", hyperparameters=Hyperparameters.model_construct(**values))


async def test_unknown_words_are_named_with_the_known_ones(client):
    with pytest.raises(InvalidInput, match=r"method 'dora' is not known; known: qlora_nf4, lora"):
        await client.create("run-1", unchecked(method="dora"))
    with pytest.raises(InvalidInput, match=r"schedule 'step' is not known"):
        await client.create("run-1", unchecked(schedule="step"))


async def test_times_of_a_run(client, fake):
    await client.create("run-1", SPEC)
    assert (await client.get("run-1")).seconds == 0
    start = datetime(2026, 1, 2, tzinfo=UTC)
    fake.runs["run-1"].start_time.FromDatetime(start)
    fake.runs["run-1"].end_time.FromDatetime(start + timedelta(seconds=90))
    run = await client.get("run-1")
    assert (run.start_time, run.seconds, run.create_time) == (start, 90, None)


async def test_runs_are_listed_and_cancelled(client, fake):
    for name in ("a", "b", "c"):
        await client.create(name, SPEC)
    assert [run.id for run in await client.list()] == ["a", "b", "c"]
    cancelled = await client.cancel("b")
    assert (cancelled.state, cancelled.ended) == ("cancelled", True)
    fake.runs["a"].state = pb.RUN_STATE_SUCCEEDED
    with pytest.raises(WrongState, match="has succeeded"):
        await client.cancel("a")


async def test_a_server_that_stops_is_no_cancelled_task(client):
    with pytest.raises(Unavailable, match="ended the call GetRun"):
        await client.get("stopping")


async def test_a_watch_tells_every_change_with_all_losses(client, fake):
    await client.create("run-1", SPEC)
    runs = [run async for run in client.watch("run-1")]
    assert [len(run.losses) for run in runs] == [1, 2, 3, 4]
    assert runs[-1].losses == ((1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25))
    assert runs[-1].validation_losses == ((2, 1.0), (4, 0.5))
    assert (runs[-1].state, runs[-1].adapter_ref) == ("succeeded", "short@sha256:ab")
    assert (runs[0].progress.total_steps, runs[0].progress.eta_seconds) == (4, 3.0)
    assert fake.asked_after == [0]


@pytest.mark.parametrize("breaks", ["cancel", "end", "hang"])
async def test_a_watch_comes_back_where_it_was(client, fake, breaks):
    await client.create("run-1", SPEC)
    fake.break_after, fake.breaks = 2, breaks
    runs = [run async for run in client.watch("run-1", timeout=0.3)]
    assert [run.progress.step for run in runs] == [1, 2, 3, 4]
    assert [step for step, _ in runs[-1].losses] == [1, 2, 3, 4]
    assert fake.asked_after == [0, 2]


async def test_a_watch_outlives_a_restart_on_the_same_port(fake):
    fake.break_after, fake.breaks = 1, "hang"
    async with _serving(fake) as port:
        client = TrainerClient(f"127.0.0.1:{port}")
        await client.create("run-1", SPEC)
        watch = client.watch("run-1", patience=10)
        first = await anext(watch)
    assert first.progress.step == 1
    fake.break_after = 99
    async with _serving(fake, port), client:
        rest = [run async for run in watch]
    assert [run.progress.step for run in rest] == [2, 3, 4]
    assert [step for step, _ in rest[-1].losses] == [1, 2, 3, 4]


async def test_patience_ends(client, fake):
    await client.create("run-1", SPEC)
    fake.away = True
    with pytest.raises(Unavailable, match="ended the call WatchRun"):
        await client.wait("run-1", patience=0.3)


async def test_a_run_that_is_not_there_is_not_waited_for(client):
    with pytest.raises(NotFound, match="no run nowhere"):
        await client.wait("nowhere")


async def test_waiting_gives_the_ended_run(client, fake):
    await client.create("run-1", SPEC)
    told: list[RunInfo] = []
    run = await client.wait("run-1", on_progress=told.append)
    assert run.ended
    assert told[-1] == run
    assert len(told) == 4
