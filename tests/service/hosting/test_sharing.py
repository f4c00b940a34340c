"""What is found of sharing GPUs goes from the executor's snapshot into the pool."""

import logging
from types import SimpleNamespace

from nao_ray.errors import PoolWriteError
from nao_ray.service.hosting.sharing import SharingRecorder
from nao_ray.sharing import Shared


def test_it_is_written_when_it_changes_and_a_full_disk_ends_no_search(caplog):
    written, is_full = [], False

    def record(found):
        if is_full:
            raise PoolWriteError("no space left on device")
        written.append(found)

    tell = SharingRecorder(SimpleNamespace(record_sharing=record))
    steps = [(), (), (Shared("A", 2, 1, False),), (Shared("A", 2, 1, False),), (Shared("A", 2, 2, False),)]
    for sharing in steps:
        tell(SimpleNamespace(sharing=sharing))
    assert written == [steps[2], steps[4]]
    is_full = True
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tell(SimpleNamespace(sharing=(Shared("A", 1, 1, True),)))
    assert caplog.text.count("how many trials share a GPU is not recorded: no space left") == 1
