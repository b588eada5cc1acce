"""A whole study against fakes of the services: what is asked, once, and what is asked again."""

from __future__ import annotations

import pytest
import trustme
from fakes import served
from small_study import SmallStudy

from tuneproof.sdk.endpoints import SERVICES, variable_of
from tuneproof.servicekit.auth import Tokens
from tuneproof.servicekit.errors import InvalidInput, Unavailable, WrongState
from tuneproof.servicekit.testing import MountedSecret, certificate_files
from tuneproof.servicekit.tls import ServerTls
from tuneproof.study.steps import work

pytestmark = [pytest.mark.long, pytest.mark.timeout(120)]


@pytest.fixture
def small(tmp_path):
    return SmallStudy(tmp_path)


@pytest.fixture
def no_pauses(monkeypatch):
    async def at_once(seconds):
        return None

    for function in (work.Lane.__init__, work.persist):
        monkeypatch.setitem(function.__kwdefaults__, "pause", at_once)


async def test_a_study_runs_from_documents_to_grades(small):
    world = small.world()
    async with served(world) as target:
        results = await small.run(target)
    assert [cell.name for cell in results.cells] == ["baseline", "short-8-s1", "closed-8-s1"]
    assert len(results.answers) == 3 * 12
    assert all(answer.error == "" for answer in results.answers)
    assert all(set(a.grade.criteria) == {"accuracy", "completeness"} for a in results.answers)
    tuned = results.cells[1].training
    assert tuned.examples == 8
    assert tuned.losses == ((1, 2.0), (2, 1.0))
    short = [answer for answer in results.answers if answer.cell == "short-8-s1"]
    assert {answer.served_by for answer in short} == {tuned.adapter_ref}
    assert results.retrieval.items == 12
    assert results.retrieval.success_at_5 == 1.0
    assert [check.facts for check in results.reader_checks] == [4]
    cells = len({(answer.item, answer.text) for answer in results.answers})
    assert [check.from_cells for check in results.judge_checks] == [cells, cells]
    assert [check.forms for check in results.judge_checks] == [6 + cells, 6 + cells]
    assert results.toy_model
    assert results.self_judged
    assert {item.id for item in results.items} == {answer.item for answer in results.answers}


async def test_a_study_runs_over_mtls_with_the_token_of_a_file(small, tmp_path, monkeypatch):
    ca = trustme.CA()
    for name in ("server", "client"):
        MountedSecret(tmp_path / name, certificate_files(ca, "127.0.0.1"))
    (tmp_path / "token").write_text("t" * 20)
    tokens = Tokens(((b"t" * 20, "manage"),))
    tls = ServerTls(tmp_path / "server", client_certificates=True)
    async with served(small.world(), tokens=tokens, tls=tls) as target:
        for service in SERVICES:
            monkeypatch.setenv(variable_of(service), target)
        monkeypatch.setenv("TUNEPROOF_TLS_DIR", str(tmp_path / "client"))
        monkeypatch.setenv("TUNEPROOF_TOKEN_FILE", str(tmp_path / "token"))
        results = await small.run(environment=None)
    assert len(results.answers) == 3 * 12
    assert all(answer.error == "" for answer in results.answers)


async def test_training_data_are_the_prompts_of_serving(small):
    async with served(small.world()) as target:
        results = await small.run(target)
    files = sorted((small.state / "artifacts" / "datasets").iterdir())
    assert len(files) == 2
    texts = [path.read_text() for path in files]
    assert sum("Answer the question from the passages." in text for text in texts) == 1
    for text in texts:
        assert len(text.splitlines()) == 8
        for item in results.items:
            assert item.question not in text


async def test_a_second_run_asks_nothing(small):
    world = small.world()
    async with served(world) as target:
        first = await small.run(target)
        calls = dict(world.calls)
        second = await small.run(target)
    assert world.calls == calls
    assert second == first
    third = await small.run()  # the services are gone
    assert third == first


async def test_a_changed_rubric_is_judged_again_and_nothing_else(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
    before = dict(world.calls)
    small.write_rubric("accuracy", steps="Read it twice.")
    world.rubrics = small.world().rubrics
    async with served(world) as target:
        await small.run(target)
    changed = {name for name, count in world.calls.items() if count != before[name]}
    assert changed == {"GradeBatch", "ListRubrics"}


async def test_a_changed_model_is_trained_and_asked_again(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
        before = dict(world.calls)
        (small.folder / "tiny" / "model.safetensors").write_bytes(b"other weights")
        with pytest.raises(WrongState, match="changed after the generator started"):
            await small.run(target)
    later = small.world()
    later.runs = {}
    async with served(later) as target:
        await small.run(target)
    assert later.calls["CreateRun"] == before["CreateRun"] == 2
    assert later.calls["GenerateBatch"] == before["GenerateBatch"]
    assert later.calls["SearchBatch"] == 0


async def test_a_readme_in_the_model_folder_changes_nothing(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
        before = dict(world.calls)
        (small.folder / "tiny" / "README.md").write_text("words")
        await small.run(target)
    assert world.calls == before


async def test_more_test_items_ask_only_for_these(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
        answered = world.calls["GenerateBatch"]
        small.edit("test_items: 12", "test_items: 14")
        await small.run(target)
    assert world.calls["CreateRun"] == 2
    assert world.calls["GenerateBatch"] - answered <= 3 * 2
    assert max(world.prompts.values()) == 1


async def test_equal_work_of_two_cells_is_done_once(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
    assert max(world.prompts.values()) == 1
    assert max(world.grades.values()) == 1


async def test_a_question_that_fails_is_tried_by_the_next_run(small):
    world = small.world()
    question = (await _first_item(small)).question
    world.failing_questions = {question}
    async with served(world) as target:
        results = await small.run(target)
        failed = [answer for answer in results.answers if answer.error]
        assert len(failed) == 3
        assert {answer.error for answer in failed} == {"this question breaks the engine"}
        assert any("3 of 36 answers" in note for note in results.notes)
        world.failing_questions = set()
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)
    assert max(world.prompts.values()) == 1
    assert max(world.grades.values()) == 1


async def test_a_failed_training_leaves_the_other_cells_and_is_a_new_run_next_time(small):
    world = small.world(failing_runs={"short-8-s1"})
    async with served(world) as target:
        results = await small.run(target)
        by_cell = {cell.name: cell for cell in results.cells}
        assert by_cell["short-8-s1"].training is None
        assert by_cell["closed-8-s1"].training is not None
        errors = {a.error for a in results.answers if a.cell == "short-8-s1"}
        assert len(errors) == 1
        assert "the loss is not finite" in errors.pop()
        (told,) = [note for note in results.notes if note.startswith("short-8-s1 is not compared")]
        assert "the loss is not finite" in told
        world.failing_runs = set()
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)
    assert world.calls["CreateRun"] == 3


async def test_a_lost_stream_is_asked_for_the_rest(small, no_pauses):
    world = small.world(broken_streams=2)
    async with served(world) as target:
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)


async def test_a_service_that_stays_away_ends_the_run_and_keeps_what_was_done(small, no_pauses):
    world = small.world(broken_streams=99)
    async with served(world) as target:
        with pytest.raises(Unavailable):
            await small.run(target)
        kept = sum(kind == "answer" for kind, _, _ in small.rows().values())
        assert kept >= 3
        world.broken_streams = 0
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)


async def test_the_base_models_answer_never_counts_for_an_adapter(small):
    world = small.world(wrong_adapter=True)
    async with served(world) as target:
        results = await small.run(target)
    errors = [answer.error for answer in results.answers if answer.cell != "baseline"]
    assert all("the answer does not count" in error for error in errors)
    assert not any(a.error for a in results.answers if a.cell == "baseline")


async def test_an_answer_that_cannot_be_scored_is_unscored_and_final(small):
    world = small.world()
    async with served(world) as target:
        first = await small.run(target)
    text = first.answers[0].text
    small.state.rename(small.folder / "old-state")
    world = small.world(unscored={text})
    async with served(world) as target:
        results = await small.run(target)
        judged = world.calls["GradeBatch"]
        await small.run(target)
    scores = [a.grade.criteria["accuracy"] for a in results.answers if a.text == text]
    assert scores
    assert all(score.mean is None for score in scores)
    assert {repeat.failure for repeat in scores[0].repeats} == {"no_form"}
    assert world.calls["GradeBatch"] == judged


@pytest.mark.parametrize(("late", "again"), [(1, False), (2, True)])
async def test_a_grade_that_lost_too_many_repeats_to_the_endpoint_is_asked_for_again(
    small, late, again
):
    small.edit("repeats: 2", "repeats: 3")
    world = small.world()
    async with served(world) as target:
        first = await small.run(target)
    text = first.answers[0].text
    small.state.rename(small.folder / "old-state")
    world = small.world(timeouts={text: late})
    async with served(world) as target:
        results = await small.run(target)
        errors = {a.error for a in results.answers if a.text == text}
        judged = world.calls["GradeBatch"]
        world.timeouts = {}
        results = await small.run(target)
    told = f"not judged: the judge's endpoint failed {late} of 3 repeats (timeout)"
    assert errors == ({told} if again else {""})
    assert (world.calls["GradeBatch"] > judged) == again
    lost = {a.grade.criteria["accuracy"].lost_repeats for a in results.answers if a.text == text}
    assert lost == ({0} if again else {late})


async def test_another_model_or_judge_than_the_study_means_is_refused(small):
    async with served(small.world(model="other")) as target:
        with pytest.raises(WrongState, match="serves 'other', but the study means 'tiny'"):
            await small.run(target)
    async with served(small.world(judge_model="gpt")) as target:
        with pytest.raises(WrongState, match="asks the model 'gpt', but the study means 'tiny'"):
            await small.run(target)


async def test_a_judge_with_an_older_rubric_is_refused(small):
    world = small.world()
    small.write_rubric("completeness", steps="Count the words.")
    async with served(world) as target:
        with pytest.raises(WrongState, match="tele-completeness@1 is not the one in"):
            await small.run(target)


async def test_without_a_judge_the_scores_are_lexical(small):
    small.edit(
        "judge: {rubrics: [tele-accuracy@1, tele-completeness@1], repeats: 2, seed: 1}\n", ""
    )
    small.edit("margin: {accuracy: 0.25, completeness: 0.25}", "margin: {token_f1: 0.05}")
    small.edit(", judge: {forms: 6}", "")
    async with served(small.world()) as target:
        results = await small.run(target)
    assert results.judge_model == ""
    assert {found.measure for found in results.primary} == {"token_f1"}
    assert all(answer.grade.criteria == {} for answer in results.answers)
    assert all(answer.grade.lexical for answer in results.answers)


@pytest.mark.parametrize(
    ("margins", "message"),
    [
        ("{accuracy: 0.25}", "completeness needs a margin"),
        ("{accuracy: 4, completeness: 0.25}", r"accuracy \(points, 1 to 5\), so each verdict"),
    ],
)
async def test_a_margin_that_decides_nothing_is_refused_before_anything_runs(
    small, margins, message
):
    small.edit("{accuracy: 0.25, completeness: 0.25}", margins)
    world = small.world()
    async with served(world) as target:
        with pytest.raises(InvalidInput, match=message):
            await small.run(target)
    assert not world.calls


async def test_a_retriever_that_lost_its_corpus_gets_it_again(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
        world.corpora.clear()
        world.documents.clear()
        small.edit("test_items: 12", "test_items: 14")
        results = await small.run(target)
    assert world.calls["FreezeCorpus"] == 2
    assert not any(answer.error for answer in results.answers)


async def test_another_embedder_searches_everything_anew(small):
    world = small.world()
    async with served(world) as target:
        await small.run(target)
        searched = world.calls["SearchBatch"]
        world.corpora.clear()
        world.documents.clear()
        world.embedder = "sha256:" + "f" * 64
        small.edit("test_items: 12", "test_items: 14")
        await small.run(target)
    assert world.calls["SearchBatch"] >= 2 * searched


async def test_a_study_with_reranking_says_so_in_each_search_and_searches_anew(small):
    world = small.world()
    async with served(world) as target:
        plain = await small.run(target)
        assert not world.reranks
        searched = world.calls["SearchBatch"]
        small.edit("k: 3}", "k: 3, rerank: {model: org/reranker, depth: 5}}")
        reranked = await small.run(target)
        assert world.calls["SearchBatch"] == 2 * searched
        # Retrieval is measured as deep as ever.
        asked = {(each.depth, each.expected_reranker) for each in world.reranks}
        assert asked == {(10, "org/reranker")}
        small.edit(", rerank: {model: org/reranker, depth: 5}", "")
        assert (await small.run(target)).provenance == plain.provenance
        assert world.calls["SearchBatch"] == 2 * searched
    assert "reranked by org/reranker" in reranked.provenance["retrieval"]
    assert "rerank" not in plain.provenance["retrieval"]


async def test_a_search_that_fails_is_told_with_the_answer(small):
    world = small.world()
    question = (await _first_item(small)).question
    world.failing_searches = {question}
    async with served(world) as target:
        results = await small.run(target)
        failed = [answer for answer in results.answers if answer.error]
        assert {answer.error for answer in failed} == {"no passages: this search fails"}
        assert len(failed) == 3
        world.failing_searches = set()
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)
    assert world.calls["CreateRun"] == 2


async def test_a_corpus_that_lost_its_retriever_on_the_way_is_made(small, no_pauses):
    world = small.world(lost_freezes=5)
    async with served(world) as target:
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)


async def test_a_corpus_that_another_study_makes_at_the_same_time_is_used(small):
    async with served(small.world(made_by_another=True)) as target:
        results = await small.run(target)
    assert not any(answer.error for answer in results.answers)


async def _first_item(small):
    from tuneproof.study.design.prepare import Request, prepare

    return prepare(Request(small.file, small.state)).plan.test[0]
