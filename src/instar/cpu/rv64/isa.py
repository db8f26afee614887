"""The instruction set as a table: RV64IMAFDC, Zicsr, Zifencei and the privileged instructions. Data only.

Decoder and interpreter are made from it when the package is built (``gen``); assembler and disassembler read it.

Effects are written in a small language; ``rd rs1 rs2`` are integer registers (64-bit, unsigned), ``imm`` is the
sign-extended immediate, ``pc`` the address of the instruction:

==================  ==============================================================================================
``rd = EXPR``       integer computation; EXPR is C-like over the names above and the helpers of ``core/types.pxd``
``branch COND``     conditional branch to ``pc + imm``
``jal`` ``jalr``    jump and link
``load T``          ``rd`` = memory at ``rs1 + imm`` as type T, extended to 64 bits by T's sign
``store N``         the low N bytes of ``rs2`` to memory at ``rs1 + imm``
``fload N``         floating-point register load of N bytes, NaN-boxed
``fstore N``        floating-point register store of N bytes
``amo N EXPR``      atomic: ``rd`` = old value (N bytes, sign-extended), memory = EXPR over ``old`` and ``rs2``
``lr N`` ``sc N``   load reserved, store conditional of N bytes
``fp``              floating point, executed from the instruction word by ``core/fp.py``
``system NAME``     ends the run of decoded instructions; executed by ``core/system.py``
``fence KIND``      full: orders the harts' memory accesses with those of the monitor's threads; light: without
                    store-to-load order
==================  ==============================================================================================

A compressed instruction has no effect of its own: it names the instruction it expands to, and registers that
its encoding implies (``addi rs1=2``).

Source: RISC-V unprivileged ISA 20191213 and privileged architecture 20211203.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Field(NamedTuple):
    """An operand in an instruction word.

    Attributes:
        kind: What an assembler reads: x, f (register), imm, upper (shown >> 12), shamt, offset (from pc), csr,
            rm, fence (set of i o r w).
        roles: What it is for the instruction: rd, rs1, rs2, rs3, imm; a compressed field may be two at once.
        parts: (lowest bit in the instruction, width, lowest bit in the value), bits.
        signed: The value's top bit is its sign.
        base: Added to the value (8 for the three-bit registers x8..x15).
    """

    kind: str
    roles: str
    parts: tuple[tuple[int, int, int], ...]
    signed: bool = False
    base: int = 0


class Row(NamedTuple):
    """One instruction.

    Attributes:
        name: Mnemonic.
        ext: Extension: i m a f d c, zicsr, zifencei, s (privileged).
        match: The bits under ``mask`` that make it this instruction; 16 bits wide for extension c, else 32.
        mask: Bits that are not operands.
        syntax: Operands in assembly order, by names of :data:`FIELDS`; registers in it that are no fields are implied.
            Extension a: bits 26 (aq) and 25 (rl) are suffixes of the mnemonic.
        effect: See above; for compressed instructions the name it expands to and its implied registers.
        nonzero: Fields that may not be 0; with 0 the row does not match and the search goes on.
    """

    name: str
    ext: str
    match: int
    mask: int
    syntax: str
    effect: str
    nonzero: tuple[str, ...] = ()


# fmt: off
FIELDS: Final[dict[str, Field]] = {
    "rd": Field("x", "rd", ((7, 5, 0),)),
    "rs1": Field("x", "rs1", ((15, 5, 0),)),
    "rs2": Field("x", "rs2", ((20, 5, 0),)),
    "fd": Field("f", "rd", ((7, 5, 0),)),
    "fs1": Field("f", "rs1", ((15, 5, 0),)),
    "fs2": Field("f", "rs2", ((20, 5, 0),)),
    "fs3": Field("f", "rs3", ((27, 5, 0),)),
    "imm12": Field("imm", "imm", ((20, 12, 0),), signed=True),
    "imm12s": Field("imm", "imm", ((7, 5, 0), (25, 7, 5)), signed=True),
    "bimm13": Field("offset", "imm", ((8, 4, 1), (25, 6, 5), (7, 1, 11), (31, 1, 12)), signed=True),
    "imm20": Field("upper", "imm", ((12, 20, 12),), signed=True),
    "jimm21": Field("offset", "imm", ((21, 10, 1), (20, 1, 11), (12, 8, 12), (31, 1, 20)), signed=True),
    "shamt6": Field("shamt", "imm", ((20, 6, 0),)),
    "shamt5": Field("shamt", "imm", ((20, 5, 0),)),
    "csr": Field("csr", "csr", ((20, 12, 0),)),
    "zimm": Field("imm", "rs1", ((15, 5, 0),)),
    "rm": Field("rm", "rm", ((12, 3, 0),)),
    "pred": Field("fence", "pred", ((24, 4, 0),)),
    "succ": Field("fence", "succ", ((20, 4, 0),)),
    # Compressed. A trailing p: three bits, x8..x15 or f8..f15.
    "c_rd": Field("x", "rd", ((7, 5, 0),)),
    "c_rs1": Field("x", "rs1", ((7, 5, 0),)),
    "c_rd_rs1": Field("x", "rd rs1", ((7, 5, 0),)),
    "c_rs2": Field("x", "rs2", ((2, 5, 0),)),
    "c_rdp": Field("x", "rd", ((2, 3, 0),), base=8),
    "c_rs1p": Field("x", "rs1", ((7, 3, 0),), base=8),
    "c_rs2p": Field("x", "rs2", ((2, 3, 0),), base=8),
    "c_rd_rs1p": Field("x", "rd rs1", ((7, 3, 0),), base=8),
    "c_fd": Field("f", "rd", ((7, 5, 0),)),
    "c_fs2": Field("f", "rs2", ((2, 5, 0),)),
    "c_fdp": Field("f", "rd", ((2, 3, 0),), base=8),
    "c_fs2p": Field("f", "rs2", ((2, 3, 0),), base=8),
    "c_imm6": Field("imm", "imm", ((2, 5, 0), (12, 1, 5)), signed=True),
    "c_shamt6": Field("shamt", "imm", ((2, 5, 0), (12, 1, 5))),
    "c_imm18": Field("upper", "imm", ((2, 5, 12), (12, 1, 17)), signed=True),
    "c_imm10": Field("imm", "imm", ((6, 1, 4), (2, 1, 5), (5, 1, 6), (3, 2, 7), (12, 1, 9)), signed=True),
    "c_uimm10": Field("imm", "imm", ((6, 1, 2), (5, 1, 3), (11, 2, 4), (7, 4, 6))),
    "c_uimm7": Field("imm", "imm", ((6, 1, 2), (10, 3, 3), (5, 1, 6))),
    "c_uimm8": Field("imm", "imm", ((10, 3, 3), (5, 2, 6))),
    "c_uimm8lwsp": Field("imm", "imm", ((4, 3, 2), (12, 1, 5), (2, 2, 6))),
    "c_uimm9ldsp": Field("imm", "imm", ((5, 2, 3), (12, 1, 5), (2, 3, 6))),
    "c_uimm8swsp": Field("imm", "imm", ((9, 4, 2), (7, 2, 6))),
    "c_uimm9sdsp": Field("imm", "imm", ((10, 3, 3), (7, 3, 6))),
    "c_jimm12": Field("offset", "imm", ((3, 3, 1), (11, 1, 4), (2, 1, 5), (7, 1, 6), (6, 1, 7), (9, 2, 8), (8, 1, 10),
                                        (12, 1, 11)), signed=True),
    "c_bimm9": Field("offset", "imm", ((3, 2, 1), (10, 2, 3), (2, 1, 5), (5, 2, 6), (12, 1, 8)), signed=True),
}

BASE: Final = (
    Row("lui", "i", 0x00000037, 0x0000007F, "rd, imm20", "rd = imm"),
    Row("auipc", "i", 0x00000017, 0x0000007F, "rd, imm20", "rd = pc + imm"),
    Row("jal", "i", 0x0000006F, 0x0000007F, "rd, jimm21", "jal"),
    Row("jalr", "i", 0x00000067, 0x0000707F, "rd, imm12(rs1)", "jalr"),
    Row("beq", "i", 0x00000063, 0x0000707F, "rs1, rs2, bimm13", "branch rs1 == rs2"),
    Row("bne", "i", 0x00001063, 0x0000707F, "rs1, rs2, bimm13", "branch rs1 != rs2"),
    Row("blt", "i", 0x00004063, 0x0000707F, "rs1, rs2, bimm13", "branch s64(rs1) < s64(rs2)"),
    Row("bge", "i", 0x00005063, 0x0000707F, "rs1, rs2, bimm13", "branch s64(rs1) >= s64(rs2)"),
    Row("bltu", "i", 0x00006063, 0x0000707F, "rs1, rs2, bimm13", "branch rs1 < rs2"),
    Row("bgeu", "i", 0x00007063, 0x0000707F, "rs1, rs2, bimm13", "branch rs1 >= rs2"),
    Row("lb", "i", 0x00000003, 0x0000707F, "rd, imm12(rs1)", "load i8"),
    Row("lh", "i", 0x00001003, 0x0000707F, "rd, imm12(rs1)", "load i16"),
    Row("lw", "i", 0x00002003, 0x0000707F, "rd, imm12(rs1)", "load i32"),
    Row("ld", "i", 0x00003003, 0x0000707F, "rd, imm12(rs1)", "load u64"),
    Row("lbu", "i", 0x00004003, 0x0000707F, "rd, imm12(rs1)", "load u8"),
    Row("lhu", "i", 0x00005003, 0x0000707F, "rd, imm12(rs1)", "load u16"),
    Row("lwu", "i", 0x00006003, 0x0000707F, "rd, imm12(rs1)", "load u32"),
    Row("sb", "i", 0x00000023, 0x0000707F, "rs2, imm12s(rs1)", "store 1"),
    Row("sh", "i", 0x00001023, 0x0000707F, "rs2, imm12s(rs1)", "store 2"),
    Row("sw", "i", 0x00002023, 0x0000707F, "rs2, imm12s(rs1)", "store 4"),
    Row("sd", "i", 0x00003023, 0x0000707F, "rs2, imm12s(rs1)", "store 8"),
    Row("addi", "i", 0x00000013, 0x0000707F, "rd, rs1, imm12", "rd = rs1 + imm"),
    Row("slti", "i", 0x00002013, 0x0000707F, "rd, rs1, imm12", "rd = s64(rs1) < s64(imm)"),
    Row("sltiu", "i", 0x00003013, 0x0000707F, "rd, rs1, imm12", "rd = rs1 < imm"),
    Row("xori", "i", 0x00004013, 0x0000707F, "rd, rs1, imm12", "rd = rs1 ^ imm"),
    Row("ori", "i", 0x00006013, 0x0000707F, "rd, rs1, imm12", "rd = rs1 | imm"),
    Row("andi", "i", 0x00007013, 0x0000707F, "rd, rs1, imm12", "rd = rs1 & imm"),
    Row("slli", "i", 0x00001013, 0xFC00707F, "rd, rs1, shamt6", "rd = rs1 << imm"),
    Row("srli", "i", 0x00005013, 0xFC00707F, "rd, rs1, shamt6", "rd = rs1 >> imm"),
    Row("srai", "i", 0x40005013, 0xFC00707F, "rd, rs1, shamt6", "rd = s64(rs1) >> imm"),
    Row("addiw", "i", 0x0000001B, 0x0000707F, "rd, rs1, imm12", "rd = sx32(rs1 + imm)"),
    Row("slliw", "i", 0x0000101B, 0xFE00707F, "rd, rs1, shamt5", "rd = sx32(rs1 << imm)"),
    Row("srliw", "i", 0x0000501B, 0xFE00707F, "rd, rs1, shamt5", "rd = sx32(zx32(rs1) >> imm)"),
    Row("sraiw", "i", 0x4000501B, 0xFE00707F, "rd, rs1, shamt5", "rd = s64(sx32(rs1)) >> imm"),
    Row("add", "i", 0x00000033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 + rs2"),
    Row("sub", "i", 0x40000033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 - rs2"),
    Row("sll", "i", 0x00001033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 << (rs2 & 63)"),
    Row("slt", "i", 0x00002033, 0xFE00707F, "rd, rs1, rs2", "rd = s64(rs1) < s64(rs2)"),
    Row("sltu", "i", 0x00003033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 < rs2"),
    Row("xor", "i", 0x00004033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 ^ rs2"),
    Row("srl", "i", 0x00005033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 >> (rs2 & 63)"),
    Row("sra", "i", 0x40005033, 0xFE00707F, "rd, rs1, rs2", "rd = s64(rs1) >> (rs2 & 63)"),
    Row("or", "i", 0x00006033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 | rs2"),
    Row("and", "i", 0x00007033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 & rs2"),
    Row("addw", "i", 0x0000003B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(rs1 + rs2)"),
    Row("subw", "i", 0x4000003B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(rs1 - rs2)"),
    Row("sllw", "i", 0x0000103B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(rs1 << (rs2 & 31))"),
    Row("srlw", "i", 0x0000503B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(zx32(rs1) >> (rs2 & 31))"),
    Row("sraw", "i", 0x4000503B, 0xFE00707F, "rd, rs1, rs2", "rd = s64(sx32(rs1)) >> (rs2 & 31)"),
    Row("fence", "i", 0x0000000F, 0x0000707F, "pred, succ", "fence full"),
    Row("fence.i", "zifencei", 0x0000100F, 0x0000707F, "", "system fence_i"),
    Row("ecall", "i", 0x00000073, 0xFFFFFFFF, "", "system ecall"),
    Row("ebreak", "i", 0x00100073, 0xFFFFFFFF, "", "system ebreak"),
    Row("csrrw", "zicsr", 0x00001073, 0x0000707F, "rd, csr, rs1", "system csrrw"),
    Row("csrrs", "zicsr", 0x00002073, 0x0000707F, "rd, csr, rs1", "system csrrs"),
    Row("csrrc", "zicsr", 0x00003073, 0x0000707F, "rd, csr, rs1", "system csrrc"),
    Row("csrrwi", "zicsr", 0x00005073, 0x0000707F, "rd, csr, zimm", "system csrrwi"),
    Row("csrrsi", "zicsr", 0x00006073, 0x0000707F, "rd, csr, zimm", "system csrrsi"),
    Row("csrrci", "zicsr", 0x00007073, 0x0000707F, "rd, csr, zimm", "system csrrci"),
    Row("sret", "s", 0x10200073, 0xFFFFFFFF, "", "system sret"),
    Row("mret", "s", 0x30200073, 0xFFFFFFFF, "", "system mret"),
    Row("wfi", "s", 0x10500073, 0xFFFFFFFF, "", "system wfi"),
    Row("sfence.vma", "s", 0x12000073, 0xFE007FFF, "rs1, rs2", "system sfence_vma"),
)

MULTIPLY: Final = (
    Row("mul", "m", 0x02000033, 0xFE00707F, "rd, rs1, rs2", "rd = rs1 * rs2"),
    Row("mulh", "m", 0x02001033, 0xFE00707F, "rd, rs1, rs2", "rd = mulh(rs1, rs2)"),
    Row("mulhsu", "m", 0x02002033, 0xFE00707F, "rd, rs1, rs2", "rd = mulhsu(rs1, rs2)"),
    Row("mulhu", "m", 0x02003033, 0xFE00707F, "rd, rs1, rs2", "rd = mulhu(rs1, rs2)"),
    Row("div", "m", 0x02004033, 0xFE00707F, "rd, rs1, rs2", "rd = sdiv(rs1, rs2)"),
    Row("divu", "m", 0x02005033, 0xFE00707F, "rd, rs1, rs2", "rd = divu(rs1, rs2)"),
    Row("rem", "m", 0x02006033, 0xFE00707F, "rd, rs1, rs2", "rd = srem(rs1, rs2)"),
    Row("remu", "m", 0x02007033, 0xFE00707F, "rd, rs1, rs2", "rd = remu(rs1, rs2)"),
    Row("mulw", "m", 0x0200003B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(rs1 * rs2)"),
    Row("divw", "m", 0x0200403B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(sdiv(sx32(rs1), sx32(rs2)))"),
    Row("divuw", "m", 0x0200503B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(divu(zx32(rs1), zx32(rs2)))"),
    Row("remw", "m", 0x0200603B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(srem(sx32(rs1), sx32(rs2)))"),
    Row("remuw", "m", 0x0200703B, 0xFE00707F, "rd, rs1, rs2", "rd = sx32(remu(zx32(rs1), zx32(rs2)))"),
)

ATOMIC: Final = (
    Row("lr.w", "a", 0x1000202F, 0xF9F0707F, "rd, (rs1)", "lr 4"),
    Row("sc.w", "a", 0x1800202F, 0xF800707F, "rd, rs2, (rs1)", "sc 4"),
    Row("amoswap.w", "a", 0x0800202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 rs2"),
    Row("amoadd.w", "a", 0x0000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old + rs2"),
    Row("amoxor.w", "a", 0x2000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old ^ rs2"),
    Row("amoand.w", "a", 0x6000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old & rs2"),
    Row("amoor.w", "a", 0x4000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old | rs2"),
    Row("amomin.w", "a", 0x8000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old if s64(old) < s64(rs2) else rs2"),
    Row("amomax.w", "a", 0xA000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old if s64(old) > s64(rs2) else rs2"),
    Row("amominu.w", "a", 0xC000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old if old < rs2 else rs2"),
    Row("amomaxu.w", "a", 0xE000202F, 0xF800707F, "rd, rs2, (rs1)", "amo 4 old if old > rs2 else rs2"),
    Row("lr.d", "a", 0x1000302F, 0xF9F0707F, "rd, (rs1)", "lr 8"),
    Row("sc.d", "a", 0x1800302F, 0xF800707F, "rd, rs2, (rs1)", "sc 8"),
    Row("amoswap.d", "a", 0x0800302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 rs2"),
    Row("amoadd.d", "a", 0x0000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old + rs2"),
    Row("amoxor.d", "a", 0x2000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old ^ rs2"),
    Row("amoand.d", "a", 0x6000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old & rs2"),
    Row("amoor.d", "a", 0x4000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old | rs2"),
    Row("amomin.d", "a", 0x8000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old if s64(old) < s64(rs2) else rs2"),
    Row("amomax.d", "a", 0xA000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old if s64(old) > s64(rs2) else rs2"),
    Row("amominu.d", "a", 0xC000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old if old < rs2 else rs2"),
    Row("amomaxu.d", "a", 0xE000302F, 0xF800707F, "rd, rs2, (rs1)", "amo 8 old if old > rs2 else rs2"),
)

FLOAT: Final = (
    Row("flw", "f", 0x00002007, 0x0000707F, "fd, imm12(rs1)", "fload 4"),
    Row("fsw", "f", 0x00002027, 0x0000707F, "fs2, imm12s(rs1)", "fstore 4"),
    Row("fmadd.s", "f", 0x00000043, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fmsub.s", "f", 0x00000047, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fnmsub.s", "f", 0x0000004B, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fnmadd.s", "f", 0x0000004F, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fadd.s", "f", 0x00000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fsub.s", "f", 0x08000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fmul.s", "f", 0x10000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fdiv.s", "f", 0x18000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fsqrt.s", "f", 0x58000053, 0xFFF0007F, "fd, fs1, rm", "fp"),
    Row("fsgnj.s", "f", 0x20000053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fsgnjn.s", "f", 0x20001053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fsgnjx.s", "f", 0x20002053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fmin.s", "f", 0x28000053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fmax.s", "f", 0x28001053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fcvt.w.s", "f", 0xC0000053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fcvt.wu.s", "f", 0xC0100053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fcvt.l.s", "f", 0xC0200053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fcvt.lu.s", "f", 0xC0300053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fmv.x.w", "f", 0xE0000053, 0xFFF0707F, "rd, fs1", "fp"),
    Row("fclass.s", "f", 0xE0001053, 0xFFF0707F, "rd, fs1", "fp"),
    Row("feq.s", "f", 0xA0002053, 0xFE00707F, "rd, fs1, fs2", "fp"),
    Row("flt.s", "f", 0xA0001053, 0xFE00707F, "rd, fs1, fs2", "fp"),
    Row("fle.s", "f", 0xA0000053, 0xFE00707F, "rd, fs1, fs2", "fp"),
    Row("fcvt.s.w", "f", 0xD0000053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fcvt.s.wu", "f", 0xD0100053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fcvt.s.l", "f", 0xD0200053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fcvt.s.lu", "f", 0xD0300053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fmv.w.x", "f", 0xF0000053, 0xFFF0707F, "fd, rs1", "fp"),
)

DOUBLE: Final = (
    Row("fld", "d", 0x00003007, 0x0000707F, "fd, imm12(rs1)", "fload 8"),
    Row("fsd", "d", 0x00003027, 0x0000707F, "fs2, imm12s(rs1)", "fstore 8"),
    Row("fmadd.d", "d", 0x02000043, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fmsub.d", "d", 0x02000047, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fnmsub.d", "d", 0x0200004B, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fnmadd.d", "d", 0x0200004F, 0x0600007F, "fd, fs1, fs2, fs3, rm", "fp"),
    Row("fadd.d", "d", 0x02000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fsub.d", "d", 0x0A000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fmul.d", "d", 0x12000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fdiv.d", "d", 0x1A000053, 0xFE00007F, "fd, fs1, fs2, rm", "fp"),
    Row("fsqrt.d", "d", 0x5A000053, 0xFFF0007F, "fd, fs1, rm", "fp"),
    Row("fsgnj.d", "d", 0x22000053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fsgnjn.d", "d", 0x22001053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fsgnjx.d", "d", 0x22002053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fmin.d", "d", 0x2A000053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fmax.d", "d", 0x2A001053, 0xFE00707F, "fd, fs1, fs2", "fp"),
    Row("fcvt.s.d", "d", 0x40100053, 0xFFF0007F, "fd, fs1, rm", "fp"),
    Row("fcvt.d.s", "d", 0x42000053, 0xFFF0007F, "fd, fs1, rm", "fp"),
    Row("fcvt.w.d", "d", 0xC2000053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fcvt.wu.d", "d", 0xC2100053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fcvt.l.d", "d", 0xC2200053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fcvt.lu.d", "d", 0xC2300053, 0xFFF0007F, "rd, fs1, rm", "fp"),
    Row("fmv.x.d", "d", 0xE2000053, 0xFFF0707F, "rd, fs1", "fp"),
    Row("fclass.d", "d", 0xE2001053, 0xFFF0707F, "rd, fs1", "fp"),
    Row("feq.d", "d", 0xA2002053, 0xFE00707F, "rd, fs1, fs2", "fp"),
    Row("flt.d", "d", 0xA2001053, 0xFE00707F, "rd, fs1, fs2", "fp"),
    Row("fle.d", "d", 0xA2000053, 0xFE00707F, "rd, fs1, fs2", "fp"),
    Row("fcvt.d.w", "d", 0xD2000053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fcvt.d.wu", "d", 0xD2100053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fcvt.d.l", "d", 0xD2200053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fcvt.d.lu", "d", 0xD2300053, 0xFFF0007F, "fd, rs1, rm", "fp"),
    Row("fmv.d.x", "d", 0xF2000053, 0xFFF0707F, "fd, rs1", "fp"),
)

# Where encodings overlap, the narrower one comes first.
COMPRESSED: Final = (
    Row("c.addi4spn", "c", 0x0000, 0xE003, "c_rdp, sp, c_uimm10", "addi rs1=2", ("c_uimm10",)),
    Row("c.fld", "c", 0x2000, 0xE003, "c_fdp, c_uimm8(c_rs1p)", "fld"),
    Row("c.lw", "c", 0x4000, 0xE003, "c_rdp, c_uimm7(c_rs1p)", "lw"),
    Row("c.ld", "c", 0x6000, 0xE003, "c_rdp, c_uimm8(c_rs1p)", "ld"),
    Row("c.fsd", "c", 0xA000, 0xE003, "c_fs2p, c_uimm8(c_rs1p)", "fsd"),
    Row("c.sw", "c", 0xC000, 0xE003, "c_rs2p, c_uimm7(c_rs1p)", "sw"),
    Row("c.sd", "c", 0xE000, 0xE003, "c_rs2p, c_uimm8(c_rs1p)", "sd"),
    Row("c.nop", "c", 0x0001, 0xFFFF, "", "addi rd=0 rs1=0"),
    Row("c.addi", "c", 0x0001, 0xE003, "c_rd_rs1, c_imm6", "addi"),
    Row("c.addiw", "c", 0x2001, 0xE003, "c_rd_rs1, c_imm6", "addiw", ("c_rd_rs1",)),
    Row("c.li", "c", 0x4001, 0xE003, "c_rd, c_imm6", "addi rs1=0"),
    Row("c.addi16sp", "c", 0x6101, 0xEF83, "sp, c_imm10", "addi rd=2 rs1=2", ("c_imm10",)),
    Row("c.lui", "c", 0x6001, 0xE003, "c_rd, c_imm18", "lui", ("c_imm18",)),
    Row("c.srli", "c", 0x8001, 0xEC03, "c_rd_rs1p, c_shamt6", "srli"),
    Row("c.srai", "c", 0x8401, 0xEC03, "c_rd_rs1p, c_shamt6", "srai"),
    Row("c.andi", "c", 0x8801, 0xEC03, "c_rd_rs1p, c_imm6", "andi"),
    Row("c.sub", "c", 0x8C01, 0xFC63, "c_rd_rs1p, c_rs2p", "sub"),
    Row("c.xor", "c", 0x8C21, 0xFC63, "c_rd_rs1p, c_rs2p", "xor"),
    Row("c.or", "c", 0x8C41, 0xFC63, "c_rd_rs1p, c_rs2p", "or"),
    Row("c.and", "c", 0x8C61, 0xFC63, "c_rd_rs1p, c_rs2p", "and"),
    Row("c.subw", "c", 0x9C01, 0xFC63, "c_rd_rs1p, c_rs2p", "subw"),
    Row("c.addw", "c", 0x9C21, 0xFC63, "c_rd_rs1p, c_rs2p", "addw"),
    Row("c.j", "c", 0xA001, 0xE003, "c_jimm12", "jal rd=0"),
    Row("c.beqz", "c", 0xC001, 0xE003, "c_rs1p, c_bimm9", "beq rs2=0"),
    Row("c.bnez", "c", 0xE001, 0xE003, "c_rs1p, c_bimm9", "bne rs2=0"),
    Row("c.slli", "c", 0x0002, 0xE003, "c_rd_rs1, c_shamt6", "slli"),
    Row("c.fldsp", "c", 0x2002, 0xE003, "c_fd, c_uimm9ldsp(sp)", "fld rs1=2"),
    Row("c.lwsp", "c", 0x4002, 0xE003, "c_rd, c_uimm8lwsp(sp)", "lw rs1=2", ("c_rd",)),
    Row("c.ldsp", "c", 0x6002, 0xE003, "c_rd, c_uimm9ldsp(sp)", "ld rs1=2", ("c_rd",)),
    Row("c.jr", "c", 0x8002, 0xF07F, "c_rs1", "jalr rd=0", ("c_rs1",)),
    Row("c.mv", "c", 0x8002, 0xF003, "c_rd, c_rs2", "add rs1=0", ("c_rs2",)),
    Row("c.ebreak", "c", 0x9002, 0xFFFF, "", "ebreak"),
    Row("c.jalr", "c", 0x9002, 0xF07F, "c_rs1", "jalr rd=1", ("c_rs1",)),
    Row("c.add", "c", 0x9002, 0xF003, "c_rd_rs1, c_rs2", "add", ("c_rs2",)),
    Row("c.fsdsp", "c", 0xA002, 0xE003, "c_fs2, c_uimm9sdsp(sp)", "fsd rs1=2"),
    Row("c.swsp", "c", 0xC002, 0xE003, "c_rs2, c_uimm8swsp(sp)", "sw rs1=2"),
    Row("c.sdsp", "c", 0xE002, 0xE003, "c_rs2, c_uimm9sdsp(sp)", "sd rs1=2"),
)

# Cheaper forms for the interpreter: (instruction, condition on its operands and the word ``raw``, name, effect,
# operands to replace).
FORMS: Final = (
    ("addi", "rs1 == 0", "li", "rd = imm", ""),
    ("addi", "imm == 0", "mv", "rd = rs1", ""),
    ("add", "rs1 == 0", "mv", "rd = rs1", "rs1=rs2"),
    ("lui", "", "li", "rd = imm", ""),
    ("beq", "rs2 == 0", "beqz", "branch rs1 == 0", ""),
    ("bne", "rs2 == 0", "bnez", "branch rs1 != 0", ""),
    ("fence", "raw & 0x05000000 == 0 or raw & 0x00A00000 == 0", "fence_light", "fence light", ""),  # no [ow] or no [ir]
)

# Loops that the interpreter runs as one operation (see ``gen/loops.py``): mnemonic, rd, rs1, rs2, where a letter stands
# for any register and two letters for two; immediates are free.
LOOPS: Final = {
    # A copy between places that are aligned differently, of Linux between user and kernel.
    "shift_copy": ("srl T V S", "ld V A -", "addi A A -", "sll W V R", "or W W T", "sd - B W", "addi B B -",
                   "bltu - B E"),
    # The same where both are aligned.
    "block_copy": (*(f"ld {letter} A -" for letter in "IJKLMNOP"), *(f"sd - B {letter}" for letter in "IJKLMNOP"),
                   "addi B B -", "addi A A -", "bgeu - E B"),
    "block_set": (*["sd - B V"] * 32, "addi B B -", "bltu - B E"),  # Linux clears and fills pages
}
# fmt: on

WORDS: Final = BASE + MULTIPLY + ATOMIC + FLOAT + DOUBLE  # 32 bits wide
ROWS: Final = WORDS + COMPRESSED
