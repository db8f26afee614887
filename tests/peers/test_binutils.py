"""GNU objdump reads our instruction words as we do."""

import re
import shutil
import subprocess

import pytest

from instar.cpu.rv64.disasm import disassemble
from instar.cpu.rv64.isa import ROWS
from instar.cpu.rv64.operands import default_rounding, insert, limits, row_fields

OBJDUMP = shutil.which("riscv64-linux-gnu-objdump")
BASE = 0x8000_0000
LINE = re.compile(r"\s*([0-9a-f]+):\s+[0-9a-f]+\s+([^#<]*)")
DIFFERENT_NAMES = {"c.nop"}  # c.addi zero,0 there


def samples(row):
    """Words of an instruction: each operand at its ends and between, the others in the middle."""
    fields = row_fields(row)
    middle = {name: sum(limits(field)[:2]) // 8 * 4 for name, field in fields.items()}
    middle |= {"rm": default_rounding(row.name), "pred": 3, "succ": 15, "csr": 0x300}
    for name, field in fields.items():
        low, high, step = limits(field)
        ends = {low, high, low + step, high - step}
        fixed = {
            "rm": {middle["rm"]},
            "csr": {0x001, 0x180, 0xC01},
            "pred": {1, 15},
            "succ": {1, 8},
        }
        for value in fixed.get(name, ends):
            chosen = middle | {name: value}
            if all(chosen[n] for n in row.nonzero):
                yield row.match | sum(insert(fields[n], chosen[n]) for n in fields)
    if not fields:
        yield row.match


@pytest.fixture(scope="module")
def listing(tmp_path_factory):
    """Our words at their addresses, with what objdump makes of them."""
    words = {}
    image = b""
    for row in ROWS:
        for word in samples(row) if row.name not in DIFFERENT_NAMES else ():
            words[BASE + len(image)] = word
            image += word.to_bytes(2 if row.ext == "c" else 4, "little")
    path = tmp_path_factory.mktemp("objdump") / "words.bin"
    path.write_bytes(image)
    options = f"-b binary -m riscv:rv64 -M no-aliases -D --adjust-vma={BASE:#x}".split()
    dump = subprocess.run([OBJDUMP, *options, path], capture_output=True, text=True, check=True)
    theirs = {int(m[1], 16): m[2].split() for m in map(LINE.match, dump.stdout.splitlines()) if m}
    return words, theirs


def plain(parts):
    """Undo a difference of presentation: objdump gives compressed shifts by 0 names of their own."""
    return [part.removesuffix(",0x0").removesuffix("64") for part in parts]


def test_objdump_reads_every_instruction_as_our_disassembler(listing):
    words, theirs = listing
    ours = {at: disassemble(word, at, aliases=False).split() for at, word in words.items()}

    assert {at: plain(text) for at, text in ours.items()} == {
        at: plain(theirs[at]) for at in words
    }
