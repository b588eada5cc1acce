"""What the documents say, held against what there is: links, code, commands, calls, settings."""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from itertools import dropwhile
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from tuneproof.cli.cluster.choosing import to_front
from tuneproof.cli.main import app
from tuneproof.data.telecom_grammar import Fact
from tuneproof.sdk import SERVICES
from tuneproof.study.design.prepare import Request, prepare

from .test_manifests import settings_of

ROOT = Path(__file__).parents[1]
FOLDERS = [path for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")]
PAGES = sorted([*ROOT.glob("*.md"), *(page for each in FOLDERS for page in each.rglob("*.md"))])
TUTORIAL = ROOT / "docs/tutorial.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
CALL = re.compile(r"/(tuneproof\.(\w+)\.v1\.(\w+))/(\w+)")
JOINTS = "();<>|&\n"
COMMAND = typer.main.get_command(app)
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))

pytestmark = pytest.mark.timeout(60)

pages = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for name, text in FENCE.findall(page.read_text("utf-8")) if name in languages]


def anchors(page: Path) -> set[str]:
    """The headings as GitHub makes links of them."""
    text = FENCE.sub("", page.read_text("utf-8"))
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_text(page: Path) -> list[str]:
    """Shell blocks and `commands in the text` of a page; of compose.yaml its head's commands."""
    text = page.read_text("utf-8")
    if page.suffix == ".yaml":
        head = text.partition("\n# Variables")[0]
        return ["\n".join(re.findall(r"^#   (.*)$", head, re.MULTILINE))]
    inline = re.findall(r"`((?:tuneproof|make) [^`]+)`", FENCE.sub("", text))
    return [*blocks(page, "sh"), *inline]


def simple_commands(source: str) -> Iterator[list[str]]:
    """The words of each command, without what joins commands."""
    lines = re.sub(r"(^|\s)#.*$", "", source.replace("\\\n", " "), flags=re.MULTILINE)
    lexer = shlex.shlex(lines, posix=True, punctuation_chars=JOINTS)
    lexer.whitespace_split, lexer.whitespace, lexer.commenters = True, " \t", ""
    words: list[str] = []
    for word in [*lexer, ";"]:
        if set(word) <= set(JOINTS):
            yield words
            words = []
        else:
            words.append(word)


def commands(page: Path, program: str) -> list[list[str]]:
    """The arguments that a page gives to a program."""
    found = []
    for source in shell_text(page):
        for words in simple_commands(source):
            names = list(dropwhile(lambda word: re.match(r"[A-Z_]+=", word), words))
            if names and Path(names[0]).name == program:
                found.append(names[1:])
    return found


@pages
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), target
        assert linked.is_relative_to(ROOT), target
        if anchor:
            assert anchor in anchors(linked), target


@pages
def test_code_can_be_parsed_and_imports_what_exists(page: Path) -> None:
    for block in blocks(page, "json"):
        json.loads(block)
    for block in blocks(page, "yaml"):
        assert yaml.safe_load(block)
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)


@pages
def test_commands_and_flags_exist(page: Path) -> None:
    for arguments in commands(page, "tuneproof"):
        check_command(arguments)
    for arguments in commands(page, "make"):
        assert {each for each in arguments if "=" not in each} <= TARGETS, arguments


def test_the_head_of_the_compose_file_names_what_exists() -> None:
    (arguments,) = commands(ROOT / "compose.yaml", "tuneproof")
    check_command(arguments)


def check_command(arguments: list[str]) -> None:
    """Parses the arguments as the program would, without running anything."""
    command: Any = COMMAND
    left = to_front(arguments)
    while hasattr(command, "commands"):
        options = {name: each for each in command.params for name in each.opts}
        while left and left[0].startswith("-"):
            assert left[0] in options, arguments
            left = left[1 if options[left[0]].is_flag else 2 :]
        assert left[0] in command.commands, arguments
        command = command.commands[left.pop(0)]
    command.make_context("tuneproof", list(left))
    for each in left:
        if each.startswith("studies/"):
            assert any(file.is_file() for file in ROOT.glob(each)), arguments


@pages
def test_flags_of_services_are_settings(page: Path) -> None:
    for service in SERVICES:
        fields = {f"--{name.replace('_', '-')}" for name in settings_of(service).model_fields}
        for arguments in commands(page, f"tuneproof-{service}"):
            assert {each for each in arguments if each.startswith("--")} <= fields
    for variable in re.findall(
        r"TUNEPROOF_((?:RETRIEVER|GENERATOR|TRAINER|JUDGE)_\w+)", page.read_text("utf-8")
    ):
        service, _, field = variable.lower().partition("_")
        if variable.endswith("_TARGET"):
            continue
        assert any(name.startswith(field.rstrip("_")) for name in settings_of(service).model_fields)


@pages
def test_calls_are_those_of_the_contracts(page: Path) -> None:
    for _, service, name, method in CALL.findall(page.read_text("utf-8")):
        assert method_of(service, name, method)
    for arguments in commands(page, "buf"):
        call = CALL.search(arguments[-1])
        if call is None or "-d" not in arguments:
            continue
        message = message_factory.GetMessageClass(method_of(call[2], call[3], call[4]).input_type)()
        json_format.Parse(arguments[arguments.index("-d") + 1], message)


def method_of(service: str, name: str, method: str) -> MethodDescriptor:
    module = importlib.import_module(f"tuneproof.{service}.v1.{service}_pb2")
    found: MethodDescriptor = module.DESCRIPTOR.services_by_name[name].methods_by_name[method]
    return found


@pytest.mark.process
def test_the_tutorials_own_study_is_planned_as_it_says(tmp_path: Path) -> None:
    (tmp_path / "demo").symlink_to(ROOT / "demo")
    (tmp_path / "mine").mkdir()
    text = TUTORIAL.read_text("utf-8")
    for name, language in (("mine/shop.json", "json"), ("mine/shop.yaml", "yaml")):
        assert f"`{name}`" in text
        (block,) = blocks(TUTORIAL, language)
        (tmp_path / name).write_text(block)
    (printed,) = blocks(TUTORIAL, "")
    tuneproof = [sys.executable, "-m", "tuneproof.cli.main"]
    (plan,) = [each for each in commands(TUTORIAL, "tuneproof") if each[:2] == ["study", "plan"]]
    done = subprocess.run(
        [*tuneproof, *plan], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=50
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed


def test_the_tutorials_question_is_one_that_the_demo_tests() -> None:
    planned = prepare(Request(ROOT / "studies/demo.yaml", Path(".tuneproof"))).plan
    asked = {each[1] for each in commands(TUTORIAL, "tuneproof") if each[0] == "ask"}
    facts = {each.id: Fact.parse(each.references["full"][0]) for each in planned.test}
    (item,) = [each for each in planned.test if facts[each.id].question in asked]
    assert asked <= {facts[item.id].question, *facts[item.id].other_questions}
    text = TUTORIAL.read_text("utf-8")
    assert item.references["full"][0] in text
    assert f'"short": "{item.references["short"][0]}"' in text
    recipes = {arm.name for arm in planned.spec.tuned}
    named = re.search(r"for model in \((.*)\):", text)
    assert named is not None
    shown = set(re.findall(r'"([\w-]+)"', named[1]))
    assert "telecom-reader" in shown
    assert shown - {"telecom-reader"} <= recipes
