"""The dashboard, the alerts and the page about metrics, held to the metrics that exist."""

import importlib.util
import json
import re
import shutil
import subprocess
from pathlib import Path

import prometheus_client
import pytest
import yaml
from prometheus_client.metrics import Counter, Histogram, MetricWrapperBase

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "deploy" / "observability"
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
RULES = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
_OF_PROMETHEUS = {"instance", "job", "le"}
_METRIC = re.compile(r"\b((?:tuneproof_|vllm:)\w+)(?:\{([^}]*)\})?")


def _ours() -> dict[str, tuple[MetricWrapperBase, str]]:
    """Our metrics and the suffix of each name as Prometheus stores it."""
    for module in (
        "tuneproof.servicekit.calls",
        "tuneproof.servicekit.timing",
        "tuneproof_generator.metrics",
        "tuneproof_judge.metrics",
        "tuneproof_retriever.ingestion",
        "tuneproof_retriever.query_cache",
    ):
        importlib.import_module(module)
    found = {}
    for metric in set(prometheus_client.REGISTRY._names_to_collectors.values()):
        if not isinstance(metric, MetricWrapperBase) or not metric._name.startswith("tuneproof_"):
            continue
        suffixes = [""]
        if isinstance(metric, Counter):
            suffixes = ["_total"]
        elif isinstance(metric, Histogram):
            suffixes = ["_bucket", "_count", "_sum"]
        found |= {metric._name + suffix: (metric, suffix) for suffix in suffixes}
    return found


def _of_vllm() -> set[str]:
    """Names that vLLM's sources give; they are not imported, which would take seconds."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None
    assert spec.submodule_search_locations
    sources = Path(spec.submodule_search_locations[0], "v1", "metrics").glob("*.py")
    text = "".join(path.read_text() for path in sources)
    declared = re.findall(r"(counter|gauge|histogram)_cls\(\s*name=\"(vllm:\w+)\"", text)
    endings = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_count", "_sum"]}
    return {name + ending for kind, name in declared for ending in endings[kind]}


OURS, VLLM = _ours(), _of_vllm()
_QUERIES = [
    pytest.param(target["expr"], id=f"{panel['title']} {target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
] + [pytest.param(rule["expr"], id=rule["alert"]) for rule in RULES]


@pytest.mark.parametrize("query", _QUERIES)
def test_every_metric_and_label_of_a_query_exists(query: str) -> None:
    uses = _METRIC.findall(query)
    assert uses
    assert {name for name, _ in uses} <= OURS.keys() | VLLM
    known = set(_OF_PROMETHEUS)
    for name, selector in uses:
        labels = set(OURS[name][0]._labelnames) if name in OURS else {"model_name", "engine"}
        known |= labels
        assert set(re.findall(r"(\w+)\s*[=!]~?\"", selector)) <= labels | _OF_PROMETHEUS
    grouped = re.findall(r"\b(?:by|on) \(([^)]*)\)", query)
    assert {label.strip() for labels in grouped for label in labels.split(",")} <= known


def test_the_variables_of_the_dashboard_have_values() -> None:
    for variable in DASHBOARD["templating"]["list"][1:]:
        match = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["definition"])
        assert match
        assert match[1] in OURS
        assert match[2] in {*OURS[match[1]][0]._labelnames, "instance"}


def test_panels_say_what_they_show_and_do_not_overlap() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (place["x"] + right, place["y"] + down)
            for right in range(place["w"])
            for down in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    assert all(panel["description"] for panel in PANELS)


def test_every_metric_of_ours_is_on_a_panel_or_in_an_alert() -> None:
    queries = json.dumps(DASHBOARD) + json.dumps(RULES)
    unseen = {metric._name for metric, _ in OURS.values() if metric._name not in queries}
    assert unseen == {"tuneproof_retriever_passages_added", "tuneproof_retriever_query_vectors"}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_and_what_to_do(rule) -> None:
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    assert set(rule["annotations"]) == {"summary", "description", "action"}
    fired = f'alertname="{rule["alert"]}"'
    assert fired in (FOLDER / "alerts_test.yaml").read_text(), "no test makes it fire"


@pytest.mark.parametrize("command", [["check", "alerts.yaml"], ["test", "alerts_test.yaml"]])
def test_promtool_accepts_the_rules_and_their_tests(command) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: package prometheus)")
    verb, file = command
    done = subprocess.run(
        [promtool, verb, "rules", file], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_about_metrics_lists_them_with_their_labels() -> None:
    page = (ROOT / "docs" / "observability.md").read_text()
    rows = re.findall(r"^\| `(tuneproof_\w+)` \|([^|]*)\|", page, re.MULTILINE)
    told = {
        name: {label.strip() for label in labels.split(",") if label.strip()}
        for name, labels in rows
    }
    assert told == {metric._name: set(metric._labelnames) for metric, _ in OURS.values()}
