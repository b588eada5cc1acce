"""What is refused before an engine sees it: settings, sampling, stored objects."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneproof.adapters import AdapterRef, FolderStorage, RemoteStorage
from tuneproof.generator.v1 import generator_pb2 as pb
from tuneproof.servicekit.errors import Corrupted, InvalidInput
from tuneproof_generator.doors.translation import request_of
from tuneproof_generator.engine.protocol import Sampling
from tuneproof_generator.generation import check_sampling
from tuneproof_generator.main import main
from tuneproof_generator.pool.alias import Target, check_alias
from tuneproof_generator.pool.aliases import Aliases
from tuneproof_generator.pool.declarations import Declarations
from tuneproof_generator.settings import GeneratorSettings

_REF = AdapterRef("a", "sha256:" + "a" * 64)


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(max_tokens=513), "max_tokens"),
        (Sampling(temperature=-0.1), "temperature"),
        (Sampling(temperature=2.1), "temperature"),
        (Sampling(temperature=math.nan), "temperature"),
        (Sampling(top_p=0.0), "top_p"),
        (Sampling(top_p=1.5), "top_p"),
        (Sampling(seed=2**64), "seed"),
        (Sampling(stop=("x",) * 17), "stop"),
        (Sampling(stop=("x", "")), "stop"),
    ],
)
def test_sampling_out_of_range_names_its_field(sampling: Sampling, field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        check_sampling(sampling, 512)
    assert refused.value.field == f"sampling.{field}"


@given(
    st.integers(1, 512),
    st.floats(0, 2),
    st.floats(0, 1, exclude_min=True),
    st.none() | st.integers(0, 2**64 - 1),
)
def test_sampling_in_range_passes(tokens: int, temperature: float, top_p: float, seed) -> None:
    check_sampling(Sampling(tokens, temperature, top_p, seed), 512)


def test_the_contracts_defaults_are_filled_in() -> None:
    ask = request_of(pb.GenerateRequest(text="hello"))
    assert ask.sampling == Sampling(256, 0.0, 1.0, None, ())
    zero = request_of(pb.GenerateRequest(text="hello", sampling=pb.Sampling(top_p=0, seed=0)))
    assert (zero.sampling.top_p, zero.sampling.seed) == (0.0, 0)
    with pytest.raises(InvalidInput, match="no prompt"):
        request_of(pb.GenerateRequest())


@pytest.mark.parametrize("name", ["", "Live", "1st", "a" * 64, "a/b", "../x", "a@b"])
def test_what_is_no_alias_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="alias"):
        check_alias(name, "")


def test_all_mistakes_in_the_settings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--max-loras", "0", "--artifacts", "x", "--openai-bind", "nowhere"]
    with pytest.raises(SystemExit) as ended:
        run_with(arguments)
    assert ended.value.code == 2
    told = capsys.readouterr().err
    for flag in ("--model", "--max-loras", "--openai-bind"):
        assert flag in told


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--openai-bind", "0.0.0.0:0"], "tokens are required"),
        (["--max-loras", "5", "--max-cpu-loras", "4"], "below max_loras"),
    ],
)
def test_contradictions_are_told(flags, told, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run_with(["--model", "x", "--artifacts", "y", *flags])
    assert told in capsys.readouterr().err


def run_with(arguments: list[str]) -> None:
    from tuneproof.servicekit.settings import load_settings

    load_settings(GeneratorSettings, program="p", examples="", arguments=arguments)


def test_the_served_name_is_the_models_last_part() -> None:
    assert GeneratorSettings(model="/x/some-model/", artifacts="a").served_name == "some-model"
    assert GeneratorSettings(model="org/name", artifacts="a").served_name == "name"
    assert GeneratorSettings(model="m", model_name="n", artifacts="a").served_name == "n"
    assert callable(main)


@pytest.fixture(params=["folder", "remote"])
def store(request, tmp_path):
    return (
        FolderStorage(tmp_path)
        if request.param == "folder"
        else RemoteStorage(f"memory://{tmp_path}")
    )


def test_one_broken_object_hides_no_other(store) -> None:
    for alias in ("live", "next"):
        Aliases(store).move(alias, Target(_REF), expected_ref="", reason="r")
    store.write("aliases/live/00000002.json", b"{}")
    assert Aliases(store).list().keys() == {"next"}
    with pytest.raises(Corrupted, match="00000002"):
        Aliases(store).get("live")
    store.write("adapters/a/zzz.json", b"no json")
    assert Declarations(store).list() == []
