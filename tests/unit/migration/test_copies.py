"""What is agreed on with a reader of other versions, and what people are told about it."""

import pytest

from instar.cpr.errors import StateInvalidError, StateTooNewError, UpdateRefusedError
from instar.cpr.rehearsal import Answer
from instar.devices.virtio_net.state import NetState
from instar.migration.copies import (
    guest_things,
    host_things,
    sentences,
    terms_for,
    written_otherwise,
)
from instar.migration.handover import Handover
from instar.migration.parameters import Settings
from instar.migration.report import Report
from instar.migration.saving import losses_of
from instar.migration.sections import RamBlockState, RamState


class Card:
    """A network card."""

    state_class = NetState
    state_id = "nic"

    def __init__(self, **values):
        self._values = values

    def save_state(self):
        return NetState(mac=bytes(6), **self._values)


class World:
    """A machine with a card, its host and its migration, as far as an agreement looks at them."""

    def __init__(self, **card):
        self.ram_box = Card()
        self.stateful = [Card(**card)]
        self.machine = self.host = self
        self.settings = Settings()
        self.parts = []

    def things(self):
        return self.parts


def answer(**reads):
    made = Answer()
    made.program = "0.0.9"
    made.reads = {name.replace("_", "-"): versions for name, versions in reads.items()}
    return made


class Again:
    """A hand-over that notes what would be tried once more."""

    def __init__(self, answered, world=None):
        self.tried = []
        self.report = Report("cpr-exec", "1")
        self.handover = Handover(
            world or World(), ["program"], self.report, budget_ms=0, derived=True
        )
        self.handover.rehearse_new = self._try
        self.handover.take_new(answered)

    def _try(self, go_on):
        self.tried.append(dict(self.handover.versions))


def test_reader_of_the_same_versions_is_not_asked_again():
    again = Again(answer(virtio_net=(1, 2), migration_settings=(1, 9)))
    assert again.handover.rehearse_older(print) is False
    assert again.tried == []
    assert again.handover.versions["virtio-net"] == 2


def test_reader_that_tells_nothing_is_not_asked_again():
    assert Again(Answer()).handover.rehearse_older(print) is False


def test_older_reader_is_asked_again_with_its_versions_and_that_is_told():
    again = Again(answer(virtio_net=(1, 1), migration_settings=(1, 2)))
    assert again.handover.rehearse_older(print) is True
    (versions,) = again.tried
    assert (versions["virtio-net"], versions["migration-settings"]) == (1, 2)
    second = answer()
    second.notes = ["all is well"]
    again.handover.take_new(second)
    again.handover.judge_new()
    assert again.report.notes == [
        "states are written for version 0.0.9: migration-settings v2 (here v3), virtio-net v1 (here v2)",
        "all is well",
    ]
    assert again.handover.versions == versions


@pytest.mark.parametrize("reads", [(3, 4), (2, 1), (0, 1)])
def test_announcement_that_cannot_be_met_is_not_followed(reads):
    again = Again(answer(virtio_net=reads))
    with pytest.raises(UpdateRefusedError) as caught:
        again.handover.rehearse_older(print)
    text = str(caught.value)
    assert text.startswith("rehearsal of program: ")
    assert "virtio-net" in text
    assert text.endswith("; the guest was not stopped")
    assert text == f"rehearsal of program: {again.report.complaints[0]}"


def test_refusal_has_the_sentence_of_the_reader_and_a_hint():
    said = answer(virtio_net=(3, 4))
    said.complaints = ["a version that reads v2 is needed in between"]
    with pytest.raises(UpdateRefusedError) as caught:
        Again(said).handover.rehearse_older(print)
    assert caught.value.__notes__ == [
        *said.complaints,
        "hint: go by a version that reads virtio-net as v3 and as v1 to v2",
    ]


def test_older_card_has_no_place_for_more_queues_in_use():
    world = World(pairs=2)
    with pytest.raises(StateInvalidError) as caught:
        losses_of(guest_things(world), {"virtio-net": 1}, "the guest was not stopped")
    assert str(caught.value) == (
        "nic: virtio-net: pairs is in use, which version 1 has not; the guest was not stopped"
    )
    assert losses_of(guest_things(World()), {"virtio-net": 1}) == []


def test_settings_that_an_older_program_does_not_have_are_losses():
    world = World()
    world.settings.set_parameters({"x-update-timeout": 20})
    versions = {"migration-settings": 1}
    assert losses_of(host_things(world, {}), versions) == ["migration-settings.settings"]
    other = written_otherwise(host_things(world, {}), versions)
    assert sentences("0.0.9", other, ["migration-settings.settings"]) == [
        "states are written for version 0.0.9: migration-settings v1 (here v3)",
        "version 0.0.9 has no place for migration-settings.settings",
    ]


class Lamp:
    """A part of the host's side."""

    state_class = RamState
    state_id = "lamp"

    def __init__(self, *blocks):
        self._blocks = blocks

    def save_state(self):
        return RamState(blocks=list(self._blocks))


def stranger():
    said = answer(virtio_net=(1, 2), migration_settings=(1, 3))
    said.complaints = ["lamp: not on this command line, its state is left"]
    return said


def test_part_that_was_not_used_is_left_out_for_a_reader_that_does_not_know_it():
    world = World()
    world.parts = [Lamp()]
    terms = terms_for(world, stranger())
    assert (terms.other, terms.left) == ([], ["lamp"])
    assert host_things(world, terms.versions) == [world.settings]
    assert sentences("0.0.9", terms.other, [], terms.left) == [
        "version 0.0.9 does not know lamp, which is as at the start"
    ]
    again = Again(stranger(), world)
    assert again.handover.rehearse_older(print) is True


def test_part_that_was_used_is_refused_for_a_reader_that_does_not_know_it():
    world = World()
    world.parts = [Lamp(RamBlockState(id="x"))]
    with pytest.raises(StateTooNewError, match="lamp: the reader does not know state ram, this"):
        terms_for(world, stranger())


def test_part_of_the_guest_is_refused_even_if_it_was_not_used():
    said = answer(migration_settings=(1, 9))
    said.complaints = ["no"]
    with pytest.raises(StateTooNewError, match="nic: the reader does not know state virtio-net"):
        terms_for(World(), said)


def test_state_that_a_reader_took_without_complaint_is_not_unknown_to_it():
    assert terms_for(World(), answer(migration_settings=(1, 9))).versions["virtio-net"] == 2
