"""What is published agrees with the claims on file: README's table and numbers."""

import re
from pathlib import Path

import pytest

from nfp_jax.pages.claim import Claim
from nfp_jax.report.collection import ends_of, number_of, read_claims
from nfp_jax.report.published import BEGIN, END, short_table

ROOT = Path(__file__).parent.parent
FORM = re.compile(r"(?P<key>.+?): (?P<number>\S+) \((?P<ends>\S+ to [^\s)]+)\)")


def expected_lines(text):
    """What follows the word "Expect", and the lines of a list after it, as plain text.

    A list ends at the first empty line after one of its entries. Marks of comments, of
    entries and of code are taken off.
    """
    lines, inside, listed = [], False, False
    for raw in text.splitlines():
        line = raw.strip().lstrip("#").strip()
        if word := re.search(r"\bExpect\b:?", line):
            inside, listed, line = True, False, line[word.end() :].strip()
        elif not line and listed:
            inside = False
        elif inside and re.match("[-*] ", line):
            listed, line = True, line[2:].strip()
        if inside and line:
            lines.append(line.replace("`", ""))
    return lines


def disagreements(text, claims):
    """The expected lines that say of a claim what the claim does not."""
    known, wrong = {claim.key: claim for claim in claims}, []
    for line in expected_lines(text):
        found = FORM.match(line)
        if found and "/" in found["key"]:
            claim = known.get(found["key"])
            if claim is None or (found["number"], found["ends"]) != (
                number_of(claim.measured),
                ends_of(claim),
            ):
                wrong.append(line)
        elif any(line.startswith(f"{key}:") for key in known):
            wrong.append(line)
    return wrong


CLAIMS = [
    Claim("", "", "", 1234.5, -0.12345, float("inf"), key="a/points/imp/n=10/0.95"),
    Claim("", "", "", 2.0, 1.0, 3.0, key="together/gap, d = 50/0.9"),
]
TEXT = """\
Nothing before the word counts: a/points/imp/n=10/0.95: 1 (1 to 1).

# Takes a minute. Expect, of IMP less the others
# (docs/results.md has all):
#
# - `a/points/imp/n=10/0.95`: 1,234 (-0.123 to ∞), holds
# - together/gap, d = 50/0.9: 2 (1 to 3)
#   and this goes on.

After the list it does not either: a/points/imp/n=10/0.95: 1 (1 to 1).

Expect a/points/imp/n=10/0.95: 1,234 (-0.123 to ∞).
"""


def test_numbers_as_they_are_on_file_agree():
    assert disagreements(TEXT, CLAIMS) == []
    lines = expected_lines(TEXT)
    assert sum(bool(FORM.match(x)) for x in lines) == 3
    assert not [x for x in lines if "does not either" in x or "before" in x]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("`: 1,234 (", "`: 1,235 ("),
        ("-0.123 to ∞), holds", "-0.12 to ∞), holds"),
        ("2 (1 to 3)", "2 (1 to 3.5)"),
        ("2 (1 to 3)", "2 ± 1"),
        ("2 (1 to 3)", "2"),
        ("- together/gap", "- together/gone"),
        ("Expect a/points/imp/n=10/0.95: 1,234", "Expect a/points/imp/n=10/0.95: 1234"),
    ],
)
def test_one_number_or_name_that_is_not_on_file_is_found(old, new):
    assert TEXT.count(old) == 1
    assert len(disagreements(TEXT.replace(old, new), CLAIMS)) == 1


def published():
    if not (ROOT / "docs" / "claims.csv").exists():
        pytest.skip("no claims are published yet")
    return read_claims(ROOT / "docs")


def test_the_table_of_the_readme_is_that_of_the_claims_on_file():
    claims = published()
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.partition(BEGIN)[2].partition(END)[0]
    assert block.strip().splitlines() == short_table(claims)


def test_numbers_that_readers_are_told_to_expect_are_those_on_file():
    claims = published()
    for file in (ROOT / "README.md", *sorted((ROOT / "configs").glob("*.py"))):
        wrong = disagreements(file.read_text(encoding="utf-8"), claims)
        assert not wrong, f"{file.name}: {wrong}"
