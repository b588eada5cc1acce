"""Fakes of the four services: the contracts in one process, deterministic, and counting.

They stand for what is slow in earnest (an embedder, an engine, training, a judge model); the
engine's tests need their answers only to be answers. Everything on the wire is real.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fake_world import World

from tuneproof.generator.v1 import generator_pb2 as gen
from tuneproof.generator.v1 import generator_pb2_grpc
from tuneproof.judge.v1 import judge_pb2 as jud
from tuneproof.judge.v1 import judge_pb2_grpc
from tuneproof.retriever.v1 import retriever_pb2 as ret
from tuneproof.retriever.v1 import retriever_pb2_grpc
from tuneproof.servicekit import errors
from tuneproof.servicekit.batch import answer_each
from tuneproof.servicekit.digests import sha256_of_json
from tuneproof.servicekit.server import Service
from tuneproof.servicekit.testing import serving
from tuneproof.trainer.v1 import trainer_pb2 as tra
from tuneproof.trainer.v1 import trainer_pb2_grpc


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    """A passage is a document; nearest is who shares most words with the query."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def CreateCorpus(self, request, context):
        self._world.calls["CreateCorpus"] += 1
        if request.name not in self._world.corpora:
            self._world.corpora[request.name] = ret.Corpus(
                name=request.name, state=ret.CORPUS_STATE_OPEN, chunking=request.chunking
            )
            self._world.documents[request.name] = {}
        return ret.CreateCorpusResponse(corpus=self._world.corpora[request.name])

    async def IngestDocuments(self, request_iterator, context):
        added, name = 0, ""
        async for request in request_iterator:
            name = name or request.corpus
            for document in request.documents:
                added += document.id not in self._world.documents[name]
                self._world.documents[name][document.id] = document
        self._world.calls["IngestDocuments"] += added
        if self._world.made_by_another:
            await self.FreezeCorpus(ret.FreezeCorpusRequest(name=name), context)
            raise errors.WrongState(f"corpus {name} is frozen and takes no more documents")
        return ret.IngestDocumentsResponse(documents_added=added, passages_added=added)

    async def GetCorpus(self, request, context):
        return ret.GetCorpusResponse(corpus=self._world.corpora[request.name])

    async def ListCorpora(self, request, context):
        return ret.ListCorporaResponse(corpora=self._world.corpora.values())

    async def FreezeCorpus(self, request, context):
        if self._world.lost_freezes:
            self._world.lost_freezes -= 1
            raise errors.Unavailable("the retriever stops")
        self._world.calls["FreezeCorpus"] += 1
        corpus = self._world.corpora[request.name]
        texts = {name: d.text for name, d in self._world.documents[request.name].items()}
        corpus.state = ret.CORPUS_STATE_FROZEN
        corpus.digest = sha256_of_json([texts, self._world.embedder])
        corpus.embedder.digest = self._world.embedder
        corpus.document_count = corpus.passage_count = len(texts)
        return ret.FreezeCorpusResponse(corpus=corpus)

    async def SearchBatch(self, request_iterator, context):
        async for response in answer_each(
            request_iterator, self._one, _refuse(ret.SearchBatchResponse), concurrency=8
        ):
            yield response

    async def _one(self, request):
        self._world.calls["SearchBatch"] += 1
        search = request.search
        if search.query in self._world.failing_searches:
            raise errors.Internal("this search fails")
        if search.HasField("rerank"):
            self._world.reranks.append(search.rerank)
        corpus = self._world.corpora.get(search.corpus)
        if corpus is None:
            raise errors.NotFound(f"there is no corpus {search.corpus!r}")
        if corpus.digest != search.expected_digest:
            raise errors.WrongState("the corpus has another digest")
        wanted = set(re.findall(r"\w+", search.query))
        documents = self._world.documents[search.corpus].values()
        scored = sorted(
            ((len(wanted & set(re.findall(r"\w+", d.text))), d.id, d) for d in documents),
            key=lambda entry: (-entry[0], entry[1]),
        )
        passages = [
            ret.Passage(id=f"p-{name}", document_id=name, text=d.text, score=score)
            for score, name, d in scored[: search.k]
        ]
        return ret.SearchBatchResponse(
            id=request.id, result=ret.SearchResponse(passages=passages, corpus_digest=corpus.digest)
        )


class Trainer(trainer_pb2_grpc.TrainerServiceServicer):
    """Two steps, then an adapter whose digest is that of the spec."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ListRuns(self, request, context):
        return tra.ListRunsResponse(runs=self._world.runs.values())

    async def CreateRun(self, request, context):
        known = self._world.runs.get(request.run_id)
        if known is not None and known.spec != request.spec:
            raise errors.AlreadyExists("this run has another spec")
        if known is None:
            self._world.calls["CreateRun"] += 1
            run = tra.Run(id=request.run_id, spec=request.spec, state=tra.RUN_STATE_QUEUED)
            run.start_time.FromSeconds(1_000)
            self._world.runs[request.run_id] = run
        return tra.CreateRunResponse(run=self._world.runs[request.run_id])

    async def GetRun(self, request, context):
        return tra.GetRunResponse(run=self._world.runs[request.run_id])

    async def WatchRun(self, request, context):
        run = self._world.runs[request.run_id]
        if self._world.train_after is not None:
            await self._world.train_after.wait()
        for step in (1, 2):
            if run.state in (tra.RUN_STATE_SUCCEEDED, tra.RUN_STATE_FAILED):
                break
            await asyncio.sleep(self._world.delay)
            run.state = tra.RUN_STATE_RUNNING
            run.progress.step, run.progress.total_steps = step, 2
            if all(point.step != step for point in run.losses):
                run.losses.add(step=step, loss=2.0 / step)
            yield tra.WatchRunResponse(run=run)
        run.end_time.FromSeconds(1_010)
        if run.spec.adapter_name in self._world.failing_runs:
            run.state, run.reason = tra.RUN_STATE_FAILED, "the loss is not finite"
        else:
            digest = sha256_of_json([run.spec.SerializeToString(deterministic=True).hex()])
            run.adapter_ref = f"{run.spec.adapter_name}@{digest}"
            run.state = tra.RUN_STATE_SUCCEEDED
        self._world.events.append("trained")
        yield tra.WatchRunResponse(run=run)


class Generator(
    generator_pb2_grpc.GeneratorServiceServicer, generator_pb2_grpc.AdapterServiceServicer
):
    """The base repeats the first passage's first sentence; a tuned adapter its last words."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._under_way = self._given = 0
        self._full = asyncio.Condition()

    def _is_full(self):
        left = self._world.wait_for - self._given
        return self._under_way >= min(self._world.batch, left)

    async def GetPool(self, request, context):
        self._world.calls["GetPool"] += 1
        pool = gen.Pool(
            base_model=self._world.model,
            dtype="float32",
            max_loras=self._world.max_loras,
            max_cpu_loras=self._world.max_cpu_loras,
            config_digest=self._world.config_digest,
        )
        pool.start_time.FromDatetime(self._world.started)
        return gen.GetPoolResponse(pool=pool)

    async def DeclareAdapter(self, request, context):
        self._world.calls["DeclareAdapter"] += 1
        self._world.adapters.add(request.ref)
        self._world.most_adapters = max(self._world.most_adapters, len(self._world.adapters))
        return gen.DeclareAdapterResponse(adapter=_ready(request.ref))

    async def GetAdapter(self, request, context):
        if request.ref not in self._world.adapters:
            raise errors.NotFound(f"{request.ref} is not declared")
        return gen.GetAdapterResponse(adapter=_ready(request.ref))

    async def RemoveAdapter(self, request, context):
        self._world.adapters.discard(request.ref)
        return gen.RemoveAdapterResponse()

    async def Generate(self, request, context):
        if request.model and request.model not in self._world.adapters:
            raise errors.NotFound(f"no adapter {request.model}")
        self._world.alone.append(request.model)
        reply = gen.GenerateResponse()
        reply.delta.text = "alone"
        reply.final.CopyFrom(self._final(request.model))
        for name, milliseconds in (("queue", 1), ("first_token", 49)):
            reply.final.stage_times.add(stage=name).duration.FromMilliseconds(milliseconds)
        reply.final.usage.cached_tokens = 4
        yield reply

    async def GenerateBatch(self, request_iterator, context):
        self._world.streams["GenerateBatch"] += 1
        breaks = self._world.broken_streams > 0
        self._world.broken_streams -= breaks
        if breaks and not self._world.answers_before_break:
            raise errors.Unavailable("the engine is dead")
        async for response in answer_each(
            request_iterator,
            self._one,
            _refuse(gen.GenerateBatchResponse),
            concurrency=self._world.batch,
        ):
            yield response
            self._world.answers_before_break -= breaks
            if breaks and not self._world.answers_before_break:
                raise errors.Unavailable("the engine died")

    async def _one(self, request):
        generate = request.generate
        prompt = generate.chat.messages[-1].content
        question = prompt.rpartition("Question: ")[2]
        self._world.asked.append((generate.model, prompt))
        self._under_way += 1
        async with self._full:
            self._full.notify_all()
            await self._full.wait_for(self._is_full)
            self._under_way -= 1
            self._given += 1
            self._full.notify_all()
        await asyncio.sleep(self._world.delay)
        if question in self._world.failing_questions:
            raise errors.Internal("this question breaks the engine")
        if generate.model and generate.model not in self._world.adapters:
            raise errors.NotFound(f"no adapter {generate.model}")
        self._world.calls["GenerateBatch"] += 1
        self._world.events.append("answered")
        self._world.prompts[generate.model, prompt] += 1
        sentence = prompt.partition("[1] ")[2].split(".")[0].split("\n")[0]
        text = " ".join(sentence.split()[-2:]) if generate.model else f"{sentence}."
        final = self._final(generate.model)
        return gen.GenerateBatchResponse(
            id=request.id, result=gen.Generation(text=text, final=final)
        )

    def _final(self, model):
        final = gen.Final(finish_reason=gen.FINISH_REASON_STOP)
        final.usage.prompt_tokens, final.usage.completion_tokens = 10, 3
        final.served_by.base_model = self._world.model
        final.served_by.adapter_ref = "" if self._world.wrong_adapter else model
        stage = final.stage_times.add(stage="decode")
        stage.duration.FromMilliseconds(250)
        return final


class Judge(judge_pb2_grpc.JudgeServiceServicer):
    """The score counts the reference's words that the answer says."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def ListRubrics(self, request, context):
        self._world.calls["ListRubrics"] += 1
        return jud.ListRubricsResponse(rubrics=self._world.rubrics)

    async def GradeBatch(self, request_iterator, context):
        async for response in answer_each(
            request_iterator, self._one, _refuse(jud.GradeBatchResponse), concurrency=4
        ):
            yield response

    async def _one(self, request):
        asked = request.grade
        self._world.graded.append((asked.question, asked.answer))
        self._world.ways.append((asked.mode, asked.joint, asked.settled_after))
        await asyncio.sleep(self._world.delay)
        self._world.calls["GradeBatch"] += 1
        self._world.events.append("graded")
        self._world.on_grade()
        self._world.grades[asked.question, asked.answer, tuple(asked.rubrics)] += 1
        grade = jud.Grade(judge_model=self._world.judge_model if asked.rubrics else "")
        said = set(re.findall(r"\w+", asked.answer))
        wanted = set(re.findall(r"\w+", asked.references[0]))
        share = len(said & wanted) / len(wanted)
        grade.lexical.exact_match = float(asked.answer in asked.references)
        grade.lexical.token_f1 = grade.lexical.rouge_l = share
        for name in asked.rubrics:
            rubric = next(r for r in self._world.rubrics if r.id == name)
            criterion = grade.criteria.add(
                rubric=name, rubric_digest=rubric.digest, criterion=rubric.criterion
            )
            self._repeats(criterion, asked, rubric.low + round((rubric.high - rubric.low) * share))
        return jud.GradeBatchResponse(id=request.id, result=grade)

    async def CompareBatch(self, request_iterator, context):
        async for response in answer_each(
            request_iterator, self._compare, _refuse(jud.CompareBatchResponse), concurrency=4
        ):
            yield response

    async def _compare(self, request):
        """The answer with more of the reference's words is better; among equals the first shown."""
        asked = request.compare
        self._world.calls["CompareBatch"] += 1
        wanted = set(re.findall(r"\w+", asked.references[0]))
        first, second = (
            len(wanted & set(re.findall(r"\w+", text))) for text in (asked.first, asked.second)
        )
        found = jud.Comparison(judge_model=self._world.judge_model)
        for name in asked.rubrics:
            rubric = next(r for r in self._world.rubrics if r.id == name)
            one = found.criteria.add(rubric=name, criterion=rubric.criterion)
            late = self._world.late_choices.get(asked.first, 0)
            if 2 * late <= asked.repeats:
                one.preference = 0.0
            for index in range(asked.repeats):
                repeat = one.repeats.add(index=index)
                if index < late:
                    repeat.in_order.choice = jud.CHOICE_TIE
                    repeat.reversed.failure.kind = jud.FAILURE_KIND_TIMEOUT
                    continue
                better = jud.CHOICE_FIRST if first > second else jud.CHOICE_SECOND
                same = first == second
                repeat.in_order.choice = jud.CHOICE_FIRST if same else better
                repeat.reversed.choice = jud.CHOICE_SECOND if same else better
        return jud.CompareBatchResponse(id=request.id, result=found)

    def _repeats(self, criterion, asked, score):
        fails = asked.answer in self._world.unscored
        late = self._world.timeouts.get(asked.answer, 0)
        for index in range(asked.repeats):
            repeat = criterion.repeats.add(index=index, seed=asked.seed + index)
            if fails:
                repeat.failure.kind = jud.FAILURE_KIND_NO_FORM
            elif index < late:
                repeat.failure.kind = jud.FAILURE_KIND_TIMEOUT
            else:
                repeat.score = score
        if not fails and 2 * late <= asked.repeats:
            criterion.mean, criterion.scored_repeats = score, asked.repeats - late
            criterion.standard_deviation = 0.0


def service_of(world: World) -> Service:
    """All four on one server."""
    generator = Generator(world)

    def register(server):
        retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(world), server)
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(Trainer(world), server)
        generator_pb2_grpc.add_GeneratorServiceServicer_to_server(generator, server)
        generator_pb2_grpc.add_AdapterServiceServicer_to_server(generator, server)
        judge_pb2_grpc.add_JudgeServiceServicer_to_server(Judge(world), server)

    async def check_ready():
        return None

    descriptors = [
        service
        for file in (ret, tra, gen, jud)
        for service in file.DESCRIPTOR.services_by_name.values()
    ]
    return Service(register, descriptors, check_ready)


@asynccontextmanager
async def served(world: World, **guard) -> AsyncIterator[str]:
    """Serves the fakes; gives their one address."""
    async with serving(service_of(world), **guard) as target:
        yield target


def _ready(ref: str) -> gen.Adapter:
    adapter = gen.Adapter(ref=ref, state=gen.ADAPTER_STATE_READY)
    adapter.replicas.add(replica="r", state=gen.ADAPTER_STATE_READY)
    return adapter


def _refuse(response):
    return lambda request, status: response(id=request.id, error=status)
