"""Groups are interleaved in time and paired by seed; a folder belongs to one design."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.ablation.design import GROUPS, Design
from clients.ablation.folder import begin, resumable
from service_kit.errors import InvalidArgument

DESIGNS = st.builds(
    Design,
    groups=st.lists(st.sampled_from(list(GROUPS)), min_size=1, unique=True).map(tuple),
    repeats=st.integers(1, 30),
    seed=st.integers(0, 2**63 - 1),
)


@given(DESIGNS)
def test_every_repeat_is_a_block_with_each_group_once_on_one_seed(design: Design) -> None:
    cells, size = design.schedule(), len(design.groups)
    assert len(cells) == size * design.repeats
    for repeat in range(1, design.repeats + 1):
        block = cells[(repeat - 1) * size : repeat * size]
        assert {cell.repeat for cell in block} == {repeat}
        assert sorted(cell.group.name for cell in block) == sorted(design.groups)
        assert len({cell.seed for cell in block}) == 1
    assert len({cell.seed for cell in cells}) == design.repeats
    assert all(0 <= cell.seed < 2**31 for cell in cells)


@given(DESIGNS)
def test_the_schedule_follows_from_the_design_alone(design: Design) -> None:
    assert design.schedule() == Design.from_json(json.loads(json.dumps(design.to_json()))).schedule()


def test_no_group_is_always_first() -> None:
    design = Design(repeats=300)
    first = Counter(cell.group.name for cell in design.schedule()[:: len(GROUPS)])
    # Fifty of three hundred are expected for each; six standard deviations are 39.
    assert set(first) == set(GROUPS)
    assert all(11 < count < 89 for count in first.values()), first


def test_another_seed_gives_other_seeds_and_another_order() -> None:
    one, other = Design(seed=1).schedule(), Design(seed=2).schedule()
    assert {c.seed for c in one}.isdisjoint(c.seed for c in other)
    assert [c.group.name for c in one] != [c.group.name for c in other]


@pytest.mark.parametrize("groups", [(), ("A", "A"), ("A", "E")])
def test_unknown_and_repeated_groups_are_refused(groups: tuple[str, ...]) -> None:
    with pytest.raises(InvalidArgument, match="--groups: must be some of A, B, C, D, noop, restart, each once"):
        Design(groups=groups)


def test_looks_that_do_not_meet_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="--mechanism-every: must be a multiple of --configuration-every"):
        Design(configuration_every=4, mechanism_every=6)


def test_the_number_of_evaluations_counts_baselines_and_confirmations() -> None:
    assert Design(groups=("A", "C"), repeats=3, trials=10, confirmation_seeds=2).evaluations == 2 * 3 * (1 + 10 + 4)


def test_the_same_design_goes_on_and_another_is_refused(tmp_path: Path) -> None:
    design = Design(trials=7, groups=("A", "D"))
    plan, resumed = begin(tmp_path, design)
    assert not resumed
    again, resumed = begin(tmp_path, design)
    assert resumed
    assert again == plan == resumable(tmp_path)
    with pytest.raises(InvalidArgument, match="trials is 7, not 8") as error:
        begin(tmp_path, replace(design, trials=8))
    assert "--resume" in error.value.hint
    assert resumable(tmp_path) == plan


def test_cells_have_request_ids_of_their_own(tmp_path: Path) -> None:
    plan, _ = begin(tmp_path, Design(repeats=1000))
    ids = [plan.request_id(cell) for cell in plan.design.schedule()]
    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) <= 64
    other, _ = begin(tmp_path / "other", Design())
    assert other.id != plan.id


@pytest.mark.parametrize("text", ["", "{", '{"format": "bilevel-ablation/9"}', '{"format": "bilevel-ablation/1"}'])
def test_a_plan_that_cannot_be_read_is_refused_with_its_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "ablation.json").write_text(text)
    with pytest.raises(InvalidArgument, match=r"cannot read: .*ablation\.json"):
        resumable(tmp_path)


def test_a_folder_without_a_plan_cannot_be_resumed(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="there is no"):
        resumable(tmp_path)
