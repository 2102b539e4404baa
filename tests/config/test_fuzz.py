"""Whatever is in the file: a config, or a ConfigError whose every line has a place."""

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rotator.config import json_schema
from rotator.errors import ConfigError
from tests.config.writing import ISSUER, Desk

FAST = settings(deadline=None, suppress_health_check=list(HealthCheck))


def survives(content: bytes, name: str = "config.yaml") -> None:
    with tempfile.TemporaryDirectory() as directory:
        desk = Desk(Path(directory))
        desk.write(content, name)
        if name != "config.yaml":
            desk.write(ISSUER + f"include: [{name}]\n")
        try:
            desk.load()
        except ConfigError as error:
            for line in str(error).split("\n"):
                assert re.match(r"/.*:[1-9][0-9]*: \S", line), line
            str(error).encode()


def names() -> list[str]:
    schema = json_schema()
    return sorted({name for part in (schema, *schema["$defs"].values()) for name in part.get("properties", {})})


WORDS = st.sampled_from(
    [*names(), "default", "acme", "30d", "1h", "0 3 * * sun", "UTC", "/a", "0640", "https://a.example"]
)
SCALARS = st.one_of(WORDS, st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)
DOCUMENTS = st.dictionaries(st.sampled_from(names()), VALUES, max_size=5)


@st.composite
def damaged(draw: st.DrawFn, text: str) -> str:
    """Change a few places of a sound config."""
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        length = draw(st.integers(0, 6))
        text = text[:at] + draw(st.text("{}[]:,-&*!|>'\"#%@ \n\t0aé~<", max_size=4)) + text[at + length :]
    return text


SOUND = (Path(__file__).parents[2] / "config.example.yaml").read_text()
SOUND = "".join(line for line in SOUND.splitlines(keepends=True) if line.strip() and not line.startswith("#"))


@FAST
@given(st.binary(max_size=200))
def test_any_bytes(content: bytes) -> None:
    survives(content)


@FAST
@given(st.text("issuer:ah{}[]-&*!|>'\"#%@?,<= \n\t0.~", max_size=80))
@example("? ")
@example("a: !!binary x")
@example("<<: *a")
@example("&a a: &a a")
@example("- &a\n- *a")
@example('a: "\\ud800"')
def test_any_text_in_the_signs_of_yaml(content: str) -> None:
    survives(content.encode())


@FAST
@given(DOCUMENTS)
def test_any_structure_in_the_words_of_the_config(document: dict[str, Any]) -> None:
    document.setdefault("issuer", "https://a.example")
    survives(yaml.safe_dump(document, allow_unicode=True).encode("utf-8", "surrogatepass"))


@FAST
@given(damaged(SOUND))
def test_a_damaged_config(content: str) -> None:
    survives(content.encode())


@FAST
@given(DOCUMENTS, st.integers(0, 400), st.text('{}[]",:\\u0a \n', max_size=3))
def test_damaged_json(document: dict[str, Any], at: int, noise: str) -> None:
    text = json.dumps({"workspaces": document})
    survives((text[:at] + noise + text[at:]).encode(), "w.json")
    survives(text.encode(), "w.json")
