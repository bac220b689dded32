"""Every claim of the method has its test, found by its id at the end of the test's name: A-T3.1 ends with __A_T3_1."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
# Of the chapters: A the masked loss, B sampling and loss, C adapting, D the next word, E head and optimization.
EXACT = """
    A-H A-L4.1 A-L4.2 A-head A-T3 A-T3.1 A-T3.2 A-ex2 A-adam A-dist A-emb A-C4 A-T-conv
    B-15 B-loss B-plot B-T1 B-ex-corrupt B-seq
    C-seq C-T4 C-pair C-T4.1 C-tag C-reg C-strat C-apps C-C6.1 C-S2
    D-CE D-T2 D-T2.1 D-L2.1 D-idx D-tf
    E-head E-ex1 E-L1 E-L1.1 E-opt E-tab E-C1.1 E-neg E-reg E-sched E-mtl E-L1.2
"""
# Claims of what helps, which only experiments answer; some have an exact part above too.
STUDIED = """
    A-L4 A-P2 A-P2.1 A-C4 A-C4.1 A-C4-s B-rate B-L2 B-L2.1 B-C1 C-L5 C-L5.1 C-L5.2 C-seq C-T4 C-pair C-T4.1 C-T4.2
    C-T5 C-T5.1 C-T5.2 C-C5 C-S2 D-fast E-head E-P1 E-T1 E-C1.1 E-neg E-adapt E-mtl E-T1.1 E-L1.2 E-L1.2b
"""


def named(claim: str) -> str:
    return re.sub(r"[-.]", "_", claim)


def by_claim() -> dict[str, list[str]]:
    """The tests of each id, as their names spell it."""
    found: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        for name, claim in re.findall(r"^def (test_\w+?)__([A-E]_\w+)\(", path.read_text(encoding="utf-8"), re.M):
            found.setdefault(claim, []).append(name)
    return found


def test_every_exact_claim_has_a_test() -> None:
    found = by_claim()
    assert [claim for claim in EXACT.split() if named(claim) not in found] == []


def test_no_test_names_a_claim_that_is_not_listed() -> None:
    known = {named(claim) for claim in (EXACT + STUDIED).split()}
    assert {claim: names for claim, names in by_claim().items() if claim not in known} == {}


def test_ids_are_spelled_apart() -> None:
    claims = sorted({*EXACT.split(), *STUDIED.split()})
    assert len({named(claim) for claim in claims}) == len(claims)
