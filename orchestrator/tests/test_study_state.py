"""The results file and the lock."""

from __future__ import annotations

import sqlite3

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneproof.servicekit.errors import Corrupted, NotFound
from tuneproof.study.state.lock import StateHeld, exclusive
from tuneproof.study.state.store import FILE_NAME, open_state, task

pytestmark = pytest.mark.timeout(120)


def test_an_output_is_there_after_reopening(tmp_path):
    done = task("answer", {"messages": [{"content": "lone surrogate \ud800, ünïcode"}]})
    with open_state(tmp_path, write=True) as state:
        assert state.get(done.key) is None
        state.put(done, {"text": "x\ud800"})
    with open_state(tmp_path, write=False) as state:
        assert state.get(done.key) == {"text": "x\ud800"}
        assert state.missing([done, task("answer", {})]) == [task("answer", {})]


def test_a_success_ends_a_failure(tmp_path):
    tried = task("grade", {"answer": "a"})
    with open_state(tmp_path, write=True) as state:
        state.fail(tried, "no endpoint")
        assert state.failures([tried.key]) == {tried.key: "no endpoint"}
        assert state.missing([tried]) == [tried]
        state.put(tried, {})
        assert state.failures([tried.key]) == {}


def test_many_keys_are_looked_up(tmp_path):
    tasks = [task("answer", {"n": n}) for n in range(603)]
    with open_state(tmp_path, write=True) as state:
        for each in tasks[:550]:
            state.put(each, each.inputs["n"])
        assert state.get_many(t.key for t in tasks) == {t.key: t.inputs["n"] for t in tasks[:550]}
        assert state.missing(tasks + tasks) == tasks[550:]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text(), json_values), st.dictionaries(st.text(), json_values))
def test_keys_are_equal_exactly_for_equal_inputs(one, other):
    reordered = dict(reversed(one.items()))
    assert task("answer", one).key == task("answer", reordered).key
    same = repr(sorted(one.items())) == repr(sorted(other.items()))
    if not same and one != other:
        assert task("answer", one).key != task("answer", other).key
    assert task("answer", one).key != task("grade", one).key


def test_seconds_add_up_over_runs(tmp_path):
    with open_state(tmp_path, write=True) as state:
        state.add_seconds("s", "answers", 1.5)
        state.add_seconds("s", "answers", 2.0)
        state.add_seconds("other", "answers", 9.0)
        assert state.seconds("s") == {"answers": 3.5}


def test_rates_are_of_a_stage_and_a_model(tmp_path):
    with open_state(tmp_path, write=True) as state:
        assert state.rate("answers", "m") is None
        state.add_rate("answers", "m", 6.0, 3)
        state.add_rate("answers", "m", 4.0, 2)
        state.add_rate("answers", "other", 1.0, 10)
        assert state.rate("answers", "m") == 2.0
        assert state.rate("grades", "m") is None


def test_the_file_of_an_older_version_has_no_rates(tmp_path):
    with open_state(tmp_path, write=True):
        pass
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("DROP TABLE rates")
    with open_state(tmp_path, write=False) as state:
        assert state.rate("answers", "m") is None


def test_a_state_that_is_not_there_says_what_to_do(tmp_path):
    with (
        pytest.raises(NotFound, match="run `tuneproof study run` first"),
        open_state(tmp_path / "none", write=False),
    ):
        pass
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", [b"no database at all, but long enough to be read" * 40])
def test_a_damaged_file_is_named(tmp_path, content):
    (tmp_path / FILE_NAME).write_bytes(content)
    with (
        pytest.raises(Corrupted, match=rf"{FILE_NAME} cannot be used"),
        open_state(tmp_path, write=True),
    ):
        pass


def test_a_file_of_another_version_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("PRAGMA user_version = 99")
    with (
        pytest.raises(Corrupted, match="of version 99, but this program reads version 2"),
        open_state(tmp_path, write=True),
    ):
        pass


def test_trainings_of_the_first_version_are_found_by_their_content(tmp_path):
    content = {"base": "b", "data": "d", "hyperparameters": {}, "seed": 1}
    with open_state(tmp_path, write=True) as state:
        for name in ("short-8-s1", "other-8-s1"):
            state.put(task("training", {**content, "adapter_name": name}), {"adapter_ref": name})
        state.put(task("answer", {"adapter": "short-8-s1"}), {"text": "kept"})
    with sqlite3.connect(tmp_path / FILE_NAME) as database:
        database.execute("PRAGMA user_version = 1")
    for _ in range(2):
        with open_state(tmp_path, write=False) as state:
            found = state.get(task("training", content).key)
            assert found == {"adapter_ref": "short-8-s1"}
            assert state.trainings() == [found]
            assert state.get(task("answer", {"adapter": "short-8-s1"}).key) == {"text": "kept"}


def test_the_lock_is_for_one_and_is_let_go(tmp_path):
    told = pytest.raises(StateHeld, match=r"in use by process \d+, since 20")
    with exclusive(tmp_path), told, exclusive(tmp_path):
        pass
    with exclusive(tmp_path):
        pass
