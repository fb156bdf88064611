"""One file a method, one method a paper."""

from steerlens.methods.act_add import ActAdd
from steerlens.methods.caa import CAA
from steerlens.methods.clas import CLAS
from steerlens.methods.cold import ColdFD, ColdKernel
from steerlens.methods.instruction import InstructionVector
from steerlens.methods.loreft import LoReFT
from steerlens.methods.psr import PSR
from steerlens.methods.reft_r1 import ReFTr1

__all__ = [
    "CAA",
    "CLAS",
    "PSR",
    "ActAdd",
    "ColdFD",
    "ColdKernel",
    "InstructionVector",
    "LoReFT",
    "ReFTr1",
]
