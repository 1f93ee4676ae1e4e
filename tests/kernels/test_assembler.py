"""Code that an assembler got wrong is found, and kernels do not run where it may be."""

import pytest
import torch

HEAD = """
        /*0000*/                   ULDC.64 UR16, c[0x0][0x208] ;
        /*0010*/                   UMOV UR20, 0x400 ;
"""
BODY = """
.L_x_1:
        /*0020*/                   UIADD3 UR30, UP0, UR18, 0x20, URZ ;
        /*0030*/                   HGMMA.64x16x16.F32.BF16 R24, R36, gdesc[UR28].tnspB, R24 ;
        /*0040*/                   UMOV UR18, UR20 ;
        /*0050*/               @P0 BRA `(.L_x_1) ;
"""
FIRST = "        /*0018*/                   UMOV UR18, UR20 ;\n"
OPERAND = "        /*0019*/                   UIADD3.64 UR30, UR20, 0x2, URZ ;\n"


def read(text):
    pytest.importorskip("triton")
    from check_assembly import parse, unwritten

    return dict(unwritten(*parse(text)))


def test_a_register_that_only_the_end_of_a_loop_writes():
    assert list(read(HEAD + OPERAND + BODY)) == [18]


def test_a_descriptor_that_nothing_writes():
    # The product's right operand is in UR30 and UR31; the loop writes one of them.
    assert list(read(HEAD + FIRST + BODY)) == [31]


def test_sound_code():
    assert read(HEAD + OPERAND + FIRST + BODY) == {}


def test_an_address_is_one_register_however_much_lies_there():
    body = BODY.replace("UIADD3 UR30, UP0, UR18, 0x20, URZ", "LDS.64 R60, [R4+UR20+0x6200]")
    assert read(HEAD + OPERAND + FIRST + body) == {}


@pytest.mark.parametrize(
    ("capability", "version", "sound"),
    [
        ((9, 0), "12.8", False),
        ((9, 0), "12.9", True),
        ((9, 0), "13.0", True),
        ((8, 0), "12.4", True),
    ],
)
def test_which_assemblers_are_trusted(capability, version, sound, monkeypatch):
    from hypercrl_kernels import assembler

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(assembler, "_ptxas_version", lambda: version)
    assembler._verdict.cache_clear()
    reason = assembler.unsound_assembler(torch.device("cuda"))
    assembler._verdict.cache_clear()
    assert (reason is None) == sound
    if reason:
        assert "TRITON_PTXAS_PATH" in reason


def test_a_compiled_function_asks_once(monkeypatch):
    from hypercrl_kernels import assembler

    monkeypatch.setattr(assembler, "_verdict", lambda device: f"not on {device}")

    def twice(x):
        return 2 * x if assembler.unsound_assembler(torch.device("cuda", 0)) else x

    compiled = torch.compile(twice, fullgraph=True, backend="eager")
    assert torch.equal(compiled(torch.ones(2)), torch.full((2,), 2.0))
