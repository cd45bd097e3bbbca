import pytest

from tests.tables.rig import Maps, Rig


@pytest.fixture(scope="session")
def kernel_maps():
    from pyoffload.maps import create_in_memory

    maps = create_in_memory(cache_entries=4096)
    return Maps(maps)


@pytest.fixture
def rig(kernel_maps, tmp_path):
    kernel_maps.wipe()
    rig = Rig(kernel_maps, tmp_path / "config.db")
    yield rig
    rig.store.close()
