"""What a person who knows QEMU is told of what others do here."""

import pytest

from instar.cli.options import parse
from instar.errors import ConfigError


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["-netdev", "user,id=n0"], "passt does that"),
        (["-drive", "file=a.qcow2,format=qcow2"], "qemu-storage-daemon does that"),
    ],
)
def test_what_qemu_does_itself_names_who_does_it_here(words, advice) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(words)
    assert caught.value.__notes__[0].startswith(f"hint: {advice}")
