import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest

from rotator.adapters.clock import SystemClock, monotonic_microseconds
from rotator.core.timeguard import mark_of
from rotator.errors import RefusedError
from rotator.ports import Clock, Reading


def read(tmp_path: Path) -> Reading:
    clock: Clock = SystemClock(synchronised=tmp_path / "synchronized")
    return clock.read()


def test_now_is_utc_and_the_time_of_the_machine(tmp_path: Path) -> None:
    before = datetime.now(UTC)
    now = read(tmp_path).now
    assert before <= now <= datetime.now(UTC)
    assert now.tzinfo is UTC


def test_time_since_boot_is_that_of_the_kernel(tmp_path: Path) -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    since_boot = read(tmp_path).since_boot.total_seconds()
    assert before - 0.001 <= since_boot <= time.clock_gettime(time.CLOCK_BOOTTIME)


def test_two_readings_agree_on_the_offset_between_the_clocks(tmp_path: Path) -> None:
    """Were the two clocks not read together, the offset would wander and look like a clock that was set."""
    offsets = [mark_of(read(tmp_path)).offset for _ in range(50)]
    assert sorted(offsets)[40] - sorted(offsets)[10] < timedelta(milliseconds=5)


def test_boot_id_is_that_of_this_boot(tmp_path: Path) -> None:
    assert str(UUID(read(tmp_path).boot_id)) == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_boot_id_is_the_same_whether_the_kernel_or_the_unit_tells_it(tmp_path: Path) -> None:
    """With ProcSubset=pid the file is not there; systemd's %b has no dashes."""
    told = read(tmp_path).boot_id
    clock = SystemClock(tmp_path / "absent", tmp_path / "synchronized", {"ROTATOR_BOOT_ID": told})
    assert clock.read().boot_id == told


def test_without_any_boot_id_the_start_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="ROTATOR_BOOT_ID=%b"):
        SystemClock(tmp_path / "absent", environ={})


def test_the_mark_of_time_synchronisation_is_the_time_of_its_file(tmp_path: Path) -> None:
    mark = tmp_path / "synchronized"
    mark.touch()
    os.utime(mark, (1_700_000_000, 1_700_000_000))
    assert read(tmp_path).synchronised_at == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def test_without_the_mark_there_is_no_evidence_of_synchronisation(tmp_path: Path) -> None:
    assert read(tmp_path).synchronised_at is None


def test_a_mark_that_appears_later_is_seen(tmp_path: Path) -> None:
    clock = SystemClock(synchronised=tmp_path / "synchronized")
    assert clock.read().synchronised_at is None
    (tmp_path / "synchronized").touch()
    assert clock.read().synchronised_at is not None


def test_monotonic_time_is_that_of_the_kernel_in_microseconds() -> None:
    before = time.monotonic_ns() // 1000
    assert before <= monotonic_microseconds() <= time.monotonic_ns() // 1000
