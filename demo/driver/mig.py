"""The MIG profiles of an H100 80GB, as NVIDIA's MIG user guide lists them, and where instances fit."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel

COMPUTE_SLICES: Final = 7


class Profile(BaseModel):
    """A size in which GPU instances come. Placements are in memory slices, of which there are eight."""

    profile_name: str
    profile_index: int
    """NVML_GPU_INSTANCE_PROFILE_*, which is what profiles are asked for by."""
    profile_id: int
    slices: int
    instances: int
    multiprocessors: int
    memory_total: int
    copy_engines: int
    decoders: int
    encoders: int = 0
    jpegs: int
    ofas: int
    placement_size: int
    placements: tuple[int, ...]

    def free(self, placed: Iterable[tuple[Profile, int]]) -> list[int]:
        """Placements that overlap none of the instances placed already."""
        placed = list(placed)
        taken = {s for profile, start in placed for s in range(start, start + profile.placement_size)}
        if sum(profile.slices for profile, _ in placed) + self.slices > COMPUTE_SLICES:
            return []
        return [s for s in self.placements if taken.isdisjoint(range(s, s + self.placement_size))]

    def place(self, placed: Iterable[tuple[Profile, int]]) -> int | None:
        """Where the next instance goes: last first, so that the start stays free for larger ones."""
        return max(self.free(placed), default=None)

    def remaining(self, placed: Iterable[tuple[Profile, int]]) -> int:
        """How many more instances of this profile can be made."""
        placed = list(placed)
        same = sum(profile == self for profile, _ in placed)
        count = 0
        while same + count < self.instances and (start := self.place(placed)) is not None:
            placed.append((self, start))
            count += 1
        return count


def _profile(
    name: str,
    index: int,
    number: int,
    instances: int,
    multiprocessors: int,
    memory: int,
    engines: int,
    media: tuple[int, int, int],
    size: int,
    placements: tuple[int, ...],
) -> Profile:
    return Profile(
        profile_name=name,
        profile_index=index,
        profile_id=number,
        slices=int(name[0]),
        instances=instances,
        multiprocessors=multiprocessors,
        memory_total=memory * 1024**2,
        copy_engines=engines,
        decoders=media[0],
        jpegs=media[1],
        ofas=media[2],
        placement_size=size,
        placements=placements,
    )


H100_PROFILES: Final = {
    profile.profile_name: profile
    for profile in (
        _profile("1g.10gb", 0, 19, 7, 16, 9984, 1, (1, 1, 0), 1, (0, 1, 2, 3, 4, 5, 6)),
        _profile("1g.10gb+me", 7, 20, 1, 16, 9984, 1, (1, 1, 1), 1, (0, 1, 2, 3, 4, 5, 6)),
        _profile("1g.20gb", 9, 15, 4, 26, 20096, 1, (1, 1, 0), 2, (0, 2, 4, 6)),
        _profile("2g.20gb", 1, 14, 3, 32, 20096, 2, (2, 2, 0), 2, (0, 2, 4)),
        _profile("3g.40gb", 2, 9, 2, 60, 40320, 3, (3, 3, 0), 4, (0, 4)),
        _profile("4g.40gb", 3, 5, 1, 64, 40320, 4, (4, 4, 0), 4, (0,)),
        _profile("7g.80gb", 4, 0, 1, 132, 80896, 8, (7, 7, 1), 8, (0,)),
    )
}
