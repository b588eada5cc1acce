"""Traces and reports that other load testers read."""

from __future__ import annotations

import json
from itertools import islice

import pytest
import yaml
from llmd_benchmark_report.schema_v0_2 import BenchmarkReportV02
from loadtest_result import ALIASES, LOAD, REFS, load_result

from tuneproof.loadtest import Trace, benchmark_reports, read_trace, trace_of
from tuneproof.loadtest.records import Ask
from tuneproof.servicekit.errors import InvalidInput

pytestmark = pytest.mark.timeout(60)


def written(folder, *lines):
    path = folder / "trace.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


def row(timestamp, **more):
    return {"timestamp": timestamp, "text_input": "who?", "output_length": 3, **more}


def test_the_unit_of_a_timestamp_is_said_and_the_first_request_is_at_zero(tmp_path):
    path = written(tmp_path, row(2500, extra={"model": "one"}), row(500))
    assert read_trace(path, "milliseconds").asks == (
        Ask(0.0, "", "who?", 3),
        Ask(2.0, "one", "who?", 3),
    )
    assert [ask.due for ask in read_trace(path, "seconds").asks] == [0.0, 2000.0]
    assert read_trace(path, "milliseconds").seconds == 4.0


def test_blocks_of_one_name_are_the_same_text_and_the_rest_is_not(tmp_path):
    def length(words, *blocks):
        return {"timestamp": 0, "input_length": words, "hash_ids": list(blocks)}

    path = written(tmp_path, length(700, 4), length(700, 4), length(1100, 4, 9), length(5))
    texts = [ask.prompt.split() for ask in read_trace(path, "milliseconds").asks]
    assert [len(text) for text in texts] == [700, 700, 1100, 5]
    assert texts[0][:512] == texts[1][:512] == texts[2][:512]
    assert texts[0][512] != texts[1][512]
    assert texts[2][512:1024] != texts[0][512:]


def test_every_line_that_is_no_request_is_named(tmp_path):
    path = written(
        tmp_path,
        [],
        {"text_input": "x"},
        {"timestamp": 1},
        row(1, extra={"model": 7}),
        row(1, output_length=0),
        {"timestamp": 1, "input_length": 3, "hash_ids": ["a"]},
        row(1),
    )
    with pytest.raises(InvalidInput) as caught:
        read_trace(path, "seconds")
    lines = caught.value.message.splitlines()
    assert [line.split(":")[1] for line in lines] == ["1", "2", "3", "4", "5", "6"]
    for part, line in zip(
        ("object", "'timestamp'", "'text_input' or", "'model'", "'output_length'", "'hash_ids'"),
        lines,
        strict=True,
    ):
        assert part in line


def test_a_trace_is_replayed_over_and_over_by_the_models_that_are_served():
    trace = Trace((Ask(0.0, "b", "p", 1), Ask(1.0, "a", "p", 1), Ask(2.0, "b", "p", 1)))
    onto = trace.onto(("first", "second", "third"), LOAD)
    assert [ask.model for ask in onto.asks] == ["first", "second", "first"]
    assert [ask.due for ask in islice(onto.requests(), 6)] == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    assert {ask.model for ask in islice(onto.requests(base_only=True), 6)} == {""}
    with pytest.raises(InvalidInput, match="names 2 models, more than the 1"):
        trace.onto(("only",), LOAD)
    unnamed = Trace(tuple(Ask(float(n), "", "p", 1) for n in range(400)))
    models = [ask.model for ask in unnamed.onto(("first", "second"), LOAD).asks]
    assert models.count("first") > models.count("second") > models.count("") > 10


def test_what_was_sent_is_written_and_read_again(tmp_path):
    phase = load_result().phases[0]
    path = tmp_path / "written.jsonl"
    path.write_text(trace_of(phase, "milliseconds", base_model="base"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    # aiperf takes one of the two.
    assert all("text_input" in line and "input_length" not in line for line in lines)
    assert {line["extra"]["model"] for line in lines} <= {*REFS, *ALIASES, "base"}
    found = read_trace(path, "milliseconds")
    sent = sorted(phase.replies, key=lambda reply: reply.due)
    assert [ask.prompt for ask in found.asks] == [reply.prompt for reply in sent]
    gaps = [reply.due - sent[0].due for reply in sent]
    assert [ask.due for ask in found.asks] == pytest.approx(gaps, abs=0.0011)
    path.write_text(trace_of(phase, "seconds"))
    line = json.loads(path.read_text().splitlines()[0])
    assert line["input_length"] == len(sent[0].prompt.split())
    assert [ask.due for ask in read_trace(path, "seconds").asks] == pytest.approx(gaps, abs=1e-5)


def test_a_report_for_each_side_is_what_llm_d_reads():
    result = load_result()
    reports = benchmark_reports(result)
    assert set(reports) == {"quiet", "swap"}
    read = {side: BenchmarkReportV02(**yaml.safe_load(yaml.safe_dump(each)))
            for side, each in reports.items()}  # fmt: skip
    assert len({each.run.eid for each in read.values()}) == 1
    assert len({each.run.uid for each in read.values()}) == 2
    for side, each in read.items():
        phases = [p for p in result.phases if (p.side, p.load) == (side, "open")]
        replies = [reply for phase in phases for reply in phase.replies]
        aggregate = each.results.request_performance.aggregate
        assert aggregate.requests.total == len(replies)
        assert aggregate.requests.failures == sum(bool(reply.error) for reply in replies)
        measured = result.figures.sides[side]
        assert aggregate.latency.time_to_first_token.p99 == measured["first_token"]["p99"]
        assert aggregate.latency.request_latency.p50 == measured["whole"]["p50"]
        config = each.scenario.load.native.config
        assert config["ratios"]["throughput_ratio"] == result.figures.throughput_ratio
        assert bool(config["swaps"]) == (side == "swap")
        (engine,) = each.scenario.stack
        assert engine.native.config["adapters"] == list(result.swaps.adapters)
        assert engine.standardized.tool_version == "0.11.0"
