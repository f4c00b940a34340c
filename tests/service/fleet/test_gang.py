"""Who takes part in a phase, and when its members are given up."""

from nao_ray.service.fleet.gang import Gang


def test_a_phase_waits_for_all_workers_and_after_a_while_begins_with_those_there():
    gang, first, second = Gang(patience=30.0), object(), object()
    assert gang.members([first], 2, now=0.0, is_quiet=True) == []
    assert gang.is_waiting
    assert gang.members([first], 2, now=40.0, is_quiet=False) == []  # something else runs still
    assert gang.members([first], 2, now=40.0, is_quiet=True) == [first]
    assert gang.members([first, second], 2, now=41.0, is_quiet=True) == [first, second]
    assert not gang.is_waiting


def test_members_of_a_phase_whose_weights_are_there_are_overdue_after_a_while():
    gang = Gang(patience=30.0)
    assert not gang.is_overdue(1e9)
    gang.note_end(100.0)
    assert not gang.is_overdue(130.0)
    assert gang.is_overdue(131.0)
