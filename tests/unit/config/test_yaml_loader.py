"""The YAML reader keeps lines and refuses the traps of YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.errors import ConfigError
from config.yaml_loader import MAX_ALIASES, MAX_BYTES, parse_document, read_document


def refusal_of(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        parse_document(text)
    return str(refused.value.problems[0])


def test_every_key_and_item_knows_its_line() -> None:
    document = parse_document("a:\n  - x\n  - b: 1\n    c: 2\nd: {e: 3}\n")

    assert document.data == {"a": ["x", {"b": 1, "c": 2}], "d": {"e": 3}}
    assert document.lines["a", 1, "c"] == 4
    assert document.lines["a", 0] == 2
    assert document.lines["d", "e"] == 5


@pytest.mark.parametrize(
    "word", ["no", "NO", "on", "off", "yes", "010", "1E5", "12:30", "0x1F", "1_000", "2024-01-02", ".5"]
)
def test_words_that_look_like_ae_titles_stay_texts(word: str) -> None:
    assert parse_document(f"a: {word}").data == {"a": word}


def test_numbers_and_constants_are_read() -> None:
    document = parse_document("{a: 7, b: -2, c: 0.5, d: true, e: null, f: ~, g: '7', h: !!str 7}")

    assert document.data == {"a": 7, "b": -2, "c": 0.5, "d": True, "e": None, "f": None, "g": "7", "h": "7"}


def test_duplicate_key_is_a_problem_at_its_own_line_and_the_first_value_stands() -> None:
    document = parse_document("a: 1\nb: 2\na: 3\n")

    assert document.data == {"a": 1, "b": 2}
    assert [str(problem) for problem in document.problems] == [
        "line 3: a: the key is given twice, first on line 1"
    ]


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!mine", "!!binary", "!!set"]
)
def test_tagged_value_is_left_out_and_reported(tag: str) -> None:
    document = parse_document(f"a: 1\nb: {tag} x\n")

    assert document.data == {"a": 1}
    assert "is not allowed" in str(document.problems[0])
    assert document.problems[0].line == 2


def test_tag_on_a_mapping_makes_no_object() -> None:
    document = parse_document("a: !!python/object/new:os.system {args: [echo]}\n")

    assert document.data == {}
    assert document.faulty == {("a",)}


def test_item_with_a_problem_does_not_move_the_items_after_it() -> None:
    document = parse_document("- !x y\n- 2\n")

    assert document.data == [None, 2]
    assert document.lines[(1,)] == 2


def test_merge_key_and_number_as_key_are_refused() -> None:
    document = parse_document("a: &a {x: 1}\nb:\n  <<: *a\n1: y\n")

    assert document.data == {"a": {"x": 1}, "b": {}}
    assert [problem.line for problem in document.problems] == [3, 4]


def test_few_aliases_are_fine() -> None:
    assert parse_document("a: &t 30 s\nb: *t\n").data == {"a": "30 s", "b": "30 s"}


def test_many_aliases_are_refused() -> None:
    text = "a: &t x\nb: [" + ", ".join(["*t"] * (MAX_ALIASES + 1)) + "]"

    assert refusal_of(text) == f"line 2: more than {MAX_ALIASES} aliases"


def test_aliases_that_multiply_are_refused() -> None:
    levels = ["l0: &l0 [" + ", ".join(["x"] * 100) + "]"]
    levels += [f"l{n}: &l{n} [" + ", ".join([f"*l{n - 1}"] * 9) + "]" for n in range(1, 6)]

    document = parse_document("\n".join(levels))

    assert "more than 20000 values" in str(document.problems[0])
    assert () in document.faulty


def test_alias_within_itself_is_refused() -> None:
    document = parse_document("a: &a [1, *a]\n")

    assert [problem.key_path for problem in document.problems] == ["a[1]"]


def test_deep_nesting_is_refused() -> None:
    assert "nested deeper than 32 levels" in refusal_of("[" * 100_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file is empty"),
        ("# only a comment\n", "the file is empty"),
        ("a: [1\nb: 2\n", "line 2: not well-formed YAML"),
        ("a: 1\n\tb: 2\n", "line 2: not well-formed YAML"),
        ("a: 1\n---\nb: 2\n", "line 2: not well-formed YAML"),
        ("a: *unknown\n", "line 1: not well-formed YAML"),
        ("a: \x00\n", "a character that YAML refuses"),
    ],
)
def test_text_that_is_no_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    assert message in refusal_of(text)


def test_file_larger_than_one_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_bytes(b"#" * (MAX_BYTES + 1))

    with pytest.raises(ConfigError, match="larger than 1 MiB"):
        read_document(path)


def test_file_that_is_not_utf8_is_refused_with_the_line(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_bytes("a: 1\nb: Köln\n".encode("latin-1"))

    with pytest.raises(ConfigError, match="line 2: the file is not UTF-8 text"):
        read_document(path)


def test_missing_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        read_document(tmp_path / "absent.yaml")


def test_byte_order_mark_of_a_windows_editor_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "node.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\r\n")

    assert read_document(path).data == {"a": 1}
