"""Each group of channels by itself without a part of them: what it costs, and what pruning makes of that."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from untrained import patches, untrained

from cxredge.compress.channels import Group, without
from cxredge.compress.prune import AT_MOST, prune, weighed
from cxredge.compress.sensitivity import Probe, drawn, leaving, scan
from cxredge.train.macs import macs_of
from cxredge.train.network import FilmNetwork


@pytest.fixture(scope="module")
def films() -> NDArray[np.uint8]:
    return patches(8)


@pytest.fixture(scope="module")
def network() -> FilmNetwork:
    network = untrained(3)
    with torch.no_grad():
        # A finding that the network does not know, as one read from a bundle has.
        network.head.bias[1] = torch.nan  # type: ignore[index]
    return network


@pytest.fixture(scope="module")
def groups(network: FilmNetwork, films: NDArray[np.uint8]) -> list[Group]:
    # One film is labelled with what the network does not know.
    labels = np.random.default_rng(1).integers(0, 2, (8, 3)).astype(np.float32)
    return weighed(network, films, labels, "taylor")


def widths(network: FilmNetwork) -> dict[str, int]:
    return {n: layer.out_channels for n, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)}


def test_a_scan_tries_every_group_by_itself_and_leaves_the_network_as_it_was(
    network: FilmNetwork, groups: list[Group], films: NDArray[np.uint8]
) -> None:
    before = {key: value.clone() for key, value in network.state_dict().items()}
    ticks: list[tuple[int, int]] = []
    found = scan(network, groups, films, round_to=8, tick=lambda done, tries: ticks.append((done, tries)))
    assert [probe.group for probe in found[:4]] == ["features.1.conv.0.0"] * 3 + ["features.1.conv.1"]
    assert {probe.group for probe in found} == {group.name for group in groups}
    assert len(groups) == 25
    assert ticks == [(i, len(found)) for i in range(1, len(found) + 1)]
    for probe in found:
        assert np.isfinite(probe.moved)
        assert 0 < probe.gone <= AT_MOST * probe.channels
        assert (probe.channels - probe.gone) % 8 == 0
        assert 0 < probe.macs < 1
    assert max(probe.moved for probe in found) > 0
    # One of them by hand: exactly those channels leave, and the layers that share them follow.
    probe = next(probe for probe in found if probe.group == "features.3.conv.2")
    cut = without(network, 64, groups, {probe.group: probe.gone})
    assert 1 - macs_of(cut, 64) / macs_of(network, 64) == pytest.approx(probe.macs)
    own, whole = widths(cut), widths(network)
    assert {name for name in whole if own[name] != whole[name]} == {"features.2.conv.2", "features.3.conv.2"}
    with torch.no_grad():
        said = [each(torch.from_numpy(films)).sigmoid().numpy()[:, [0, 2]] for each in (network, cut)]
    assert np.abs(said[0] - said[1]).mean() == pytest.approx(probe.moved, rel=1e-3)
    assert all(torch.equal(value, before[key]) or value.isnan().any() for key, value in network.state_dict().items())
    assert drawn(found).startswith("<svg")


def test_groups_lose_what_costs_alike(network: FilmNetwork, groups: list[Group]) -> None:
    dear = "features.18.0"
    probes = [
        Probe(group.name, len(group), gone, (10 if group.name == dear else 1) * 0.01 * gone / len(group), 0.02)
        for group in groups
        for gone in (len(group) // 4, len(group) // 2)
    ]
    assert all(np.isfinite(group.weights).all() for group in groups)
    blind, spared = (widths(prune(network, groups, 64, macs=0.6, probes=given)) for given in ((), probes))
    assert blind[dear] < 1280
    # A tenth of the share that leaves elsewhere, and nowhere more than was tried.
    assert spared[dear] > 0.94 * 1280
    whole = widths(network)
    left = {group.name: spared[group.name] / len(group) for group in groups if group.name != dear}
    assert min(left.values()) >= 0.5
    assert max(left.values()) - min(left.values()) <= 8 / 16
    assert spared["features.17.conv.1.0"] < 0.85 * whole["features.17.conv.1.0"]


def test_what_is_left_is_what_was_asked_for_however_dear_the_dearest_group(
    network: FilmNetwork, groups: list[Group]
) -> None:
    # From one group to the next ten times as dear.
    probes = [
        Probe(group.name, len(group), gone, 10.0 ** (number - len(groups)) * gone / len(group), 0.02)
        for number, group in enumerate(groups)
        for gone in {leaving(len(group), share, 16) for share in (0.25, 0.75)}
        if gone
    ]
    whole, said = macs_of(network, 64), list[str]()
    for macs in (0.9, 0.7):
        left = macs_of(prune(network, groups, 64, macs=macs, probes=probes, say=said.append), 64) / whole
        assert macs - 0.05 < left <= macs
    assert not said
    # Where all cost alike, nothing tells which to spare.
    alike = [replace(probe, moved=0.0) for probe in probes]
    assert macs_of(prune(network, groups, 64, macs=0.9, probes=alike, say=said.append), 64) / whole < 0.85
    assert len(said) == 1
    assert "where 90% was asked for" in said[0]


def test_no_group_loses_more_than_its_share_however_little_it_weighs(network: FilmNetwork, groups: list[Group]) -> None:
    weightless = [replace(g, weights=0 * g.weights) if g.name == "features.16.conv.2" else g for g in groups]
    own, whole = widths(prune(network, weightless, 64, macs=0.6, round_to=8)), widths(network)
    assert own["features.16.conv.2"] == (1 - AT_MOST) * whole["features.16.conv.2"]
    assert all(own[name] >= (1 - AT_MOST) * whole[name] for name in whole)


def test_pruning_in_two_goes_leaves_a_share_of_what_the_first_left(
    network: FilmNetwork, groups: list[Group], films: NDArray[np.uint8]
) -> None:
    once = prune(network, groups, 64, macs=0.8)
    twice = prune(once, weighed(once, films, np.zeros((8, 3), np.float32), "group-norm"), 64, macs=0.8)
    whole, first, second = (macs_of(each, 64) for each in (network, once, twice))
    assert 0.7 < first / whole <= 0.8
    assert 0.7 < second / first <= 0.8


@pytest.mark.parametrize(("channels", "share", "gone"), [(32, 0.5, 16), (24, 0.5, 8), (16, 0.25, 0), (20, 0.1, 0)])
def test_channels_leave_in_steps_that_kernels_like(channels: int, share: float, gone: int) -> None:
    assert leaving(channels, share, 8) == gone
