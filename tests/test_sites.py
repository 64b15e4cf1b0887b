"""Called sites and the exons that they make, against counts by hand and every chain there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from metalayer.errors import InputError
from metalayer.genome import encode
from metalayer.schema import ACCEPTOR, DONOR
from metalayer.sites import DEFAULT_LENGTHS, CalledSites, call_sites, count_lengths, decode_exons
from metalayer.sites.calling import INTRON_ENDS, intron_ends


def scores(length: int, sites: dict[tuple[int, int], float]) -> np.ndarray:  # type: ignore[type-arg]
    found = np.zeros((length, 3), np.float32)
    for (at, kind), probability in sites.items():
        found[at, kind] = probability
    found[:, 2] = 1 - found[:, :2].sum(axis=1)
    return found


def called(found: CalledSites) -> list[tuple[int, int]]:
    return list(zip(found.positions.tolist(), found.kinds.tolist(), strict=True))


def test_sites_are_peaks_above_the_threshold_of_equal_ones_the_first() -> None:
    given = {(10, DONOR): 0.9, (12, DONOR): 0.8, (13, DONOR): 0.6, (20, ACCEPTOR): 0.5, (22, ACCEPTOR): 0.5}
    given |= {(30, DONOR): 0.29, (40, DONOR): 0.3, (40, ACCEPTOR): 0.35, (99, ACCEPTOR): 0.7, (0, DONOR): 0.4}
    found = call_sites(scores(100, given))
    assert called(found) == [(0, 0), (10, 0), (20, 1), (40, 1), (40, 0), (99, 1)]
    assert found.probabilities.tolist() == pytest.approx([0.4, 0.9, 0.5, 0.35, 0.3, 0.7])
    assert called(call_sites(scores(100, given), spacing=2)) != called(found)
    # NAGNAG acceptors are three bases apart, and both are called.
    assert called(call_sites(scores(9, {(2, ACCEPTOR): 0.9, (5, ACCEPTOR): 0.4}))) == [(2, 1), (5, 1)]


def test_bases_without_a_score_are_not_called() -> None:
    given = scores(20, {(9, DONOR): 0.9, (15, DONOR): 0.8})
    given[10], given[15] = np.nan, np.nan
    assert called(call_sites(given)) == [(9, DONOR)]


@pytest.mark.parametrize("wrong", [{"threshold": 0.0}, {"threshold": 1.0}, {"spacing": 0}])
def test_calls_that_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="calling sites"):
        call_sites(scores(5, {}), **wrong)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="calling sites"):
        call_sites(np.zeros((5, 2)))


def test_sites_in_another_order_are_refused() -> None:
    positions, kinds = np.array([5, 3]), np.array([DONOR, DONOR], np.uint8)
    with pytest.raises(InputError, match="ascending"):
        CalledSites(positions, kinds, np.array([0.5, 0.5]))
    with pytest.raises(InputError, match="1 probabilities"):
        CalledSites(positions, kinds, np.array([0.5]))
    assert CalledSites.of(positions, kinds, np.array([0.5, 0.6])).probabilities.tolist() == [0.6, 0.5]


def test_ends_of_introns_are_read_and_none_is_asked_for() -> None:
    tokens = encode("AAGGTAAGTTTTTCAGGC")
    assert intron_ends(tokens, 2, 16) == "GT/AG"
    assert intron_ends(tokens, 4, 16) == "AA/AG"
    assert {"GT/AG", "AA/AG"} & INTRON_ENDS == {"GT/AG"}


def test_lengths_are_counted_in_bins_of_half_an_octave() -> None:
    found = count_lengths([[(0, 100), (1100, 1200), (5200, 5330), (6000, 7000)], [(0, 50)], []])
    assert found.first[13] == 1 and sum(found.first) == 1
    assert found.internal[13] == 1 and found.internal[14] == 1 and sum(found.internal) == 2
    assert sum(found.last) == 2 and found.last[19] == 1
    assert sum(found.intron) == 3 and found.sites_per_nt == pytest.approx(3 / 7050)
    with pytest.raises(InputError, match="none of first, internal"):
        count_lengths([[(0, 50)]])


def test_usual_lengths_are_likelier_than_odd_ones() -> None:
    inner = DEFAULT_LENGTHS.log_ratio("internal", np.array([0, 10, 120, 1500, 50_000]))
    assert inner[0] == -np.inf and inner[2] > inner[3] > inner[4] > -20 and inner[2] > inner[1]
    introns = DEFAULT_LENGTHS.log_ratio("intron", np.array([19, 20, 90, 1000]))
    assert introns[0] == -np.inf and introns[2] > introns[3] > introns[1]


def chains(sites: CalledSites, first: int, last: int) -> Iterator[tuple[list[tuple[int, int]], float]]:
    """Every chain there is, and its score, by a plain walk."""
    logit = np.log(sites.probabilities / (1 - sites.probabilities))

    def ratio(kind: str, length: int) -> float:
        return float(DEFAULT_LENGTHS.log_ratio(kind, np.array([length]))[0])

    def walk(start: int, exons: list[tuple[int, int]], score: float) -> Iterator[tuple[list[tuple[int, int]], float]]:
        yield [*exons, (start, last)], score + ratio("last", last - start + 1)
        for i, donor in enumerate(sites.positions):
            if sites.kinds[i] != DONOR or donor < start:
                continue
            exon = ratio("internal" if exons else "first", int(donor) - start + 1)
            for j, acceptor in enumerate(sites.positions):
                if sites.kinds[j] == ACCEPTOR and acceptor > donor:
                    intron = ratio("intron", int(acceptor - donor) - 1)
                    so_far = score + exon + logit[i] + intron + logit[j]
                    yield from walk(int(acceptor), [*exons, (start, int(donor))], so_far)

    yield from walk(first, [], 0.0)


@pytest.mark.parametrize("seed", range(6))
def test_chains_and_their_probabilities_are_those_of_all_chains(seed: int) -> None:
    random = np.random.default_rng(seed)
    positions = np.sort(random.choice(np.arange(30, 3000), 9, replace=False))
    kinds = random.integers(0, 2, 9).astype(np.uint8)
    sites = CalledSites.of(positions, kinds, random.uniform(0.05, 0.95, 9))
    every = sorted(((score, exons) for exons, score in chains(sites, 0, 3100) if score > -np.inf), reverse=True)
    found = decode_exons(sites, 0, 3100, best=4)
    total = float(np.logaddexp.reduce([score for score, _ in every]))
    assert found.log_normaliser == pytest.approx(total)
    assert len(found.chains) == min(4, len(every))
    for chain, (score, exons) in zip(found.chains, every, strict=False):
        assert list(chain.exons) == exons
        assert (chain.score, chain.probability) == (pytest.approx(score), pytest.approx(np.exp(score - total)))
    for i, position in enumerate(sites.positions):
        edge = 1 if kinds[np.argsort(positions)][i] == DONOR else 0
        share = sum(np.exp(score - total) for score, exons in every if any(exon[edge] == position for exon in exons))
        assert found.use[i] == pytest.approx(share, abs=1e-9)
    assert all(one[1] < two[0] for one, two in pairwise(found.chains[0].exons))


def test_all_chains_together_have_probability_one() -> None:
    sites = CalledSites.of(np.array([150, 900, 1020]), np.array([DONOR, ACCEPTOR, DONOR]), np.full(3, 0.6))
    found = decode_exons(sites, 0, 2000, best=50)
    assert sum(chain.probability for chain in found.chains) == pytest.approx(1)
    assert found.chains[-1].exons[0][0] == 0 and found.chains[0].exons[-1][1] == 2000


def test_an_exon_of_one_base_and_sites_beyond_the_transcript() -> None:
    positions = np.array([-5, 150, 700, 700, 1500, 2500])
    kinds = np.array([ACCEPTOR, DONOR, ACCEPTOR, DONOR, ACCEPTOR, DONOR])
    found = decode_exons(CalledSites.of(positions, kinds, np.full(6, 0.999)), 0, 2000, best=3)
    assert ((0, 150), (700, 700), (1500, 2000)) in [chain.exons for chain in found.chains]
    assert found.use[[0, -1]].tolist() == [0, 0]
    assert found.chains[0].introns[0] == (found.chains[0].exons[0][1], found.chains[0].exons[1][0])


def test_an_odd_length_is_not_held_against_known_exons() -> None:
    """An exon of 4 kb: by lengths alone it is left out, and with the annotation it is there."""
    exons = [(0, 150), (60_000, 64_000), (180_000, 181_000)]
    positions = np.array([150, 60_000, 64_000, 180_000])
    sites = CalledSites.of(positions, np.array([DONOR, ACCEPTOR, DONOR, ACCEPTOR]), np.full(4, 0.8))
    assert len(decode_exons(sites, 0, 181_000).chains[0].exons) == 2
    known = decode_exons(sites, 0, 181_000, known=exons).chains[0]
    assert list(known.exons) == exons and known.probability > 0.8


def test_what_cannot_be_decoded() -> None:
    none = CalledSites.of(np.array([], np.int64), np.array([], np.uint8), np.array([]))
    assert decode_exons(none, 5, 5).chains[0].exons == ((5, 5),)
    for first, last, best in ((5, 4, 1), (0, 9, 0)):
        with pytest.raises(InputError, match="exons from"):
            decode_exons(none, first, last, best=best)


def test_a_gene_of_100_kb_takes_well_under_a_tenth_of_a_second() -> None:
    """The smallest of several runs in seconds of CPU: the machine has other work."""
    random = np.random.default_rng(1)
    values = scores(100_000, {})
    at = random.choice(100_000, 200, replace=False)
    values[at, random.integers(0, 2, 200)] = random.uniform(0.02, 1, 200)
    taken = []
    for _ in range(5):
        start = time.process_time()
        decode_exons(call_sites(values, 0.02), 0, 99_999)
        taken.append(time.process_time() - start)
    assert min(taken) < 0.1
