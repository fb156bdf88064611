"""One file a method, one method a paper. A line here exports it everywhere: `X as X`."""

from steerlens.methods.act_add import ActAdd as ActAdd
from steerlens.methods.angular import Angular as Angular
from steerlens.methods.caa import CAA as CAA
from steerlens.methods.clas import CLAS as CLAS
from steerlens.methods.cold import ColdFD as ColdFD
from steerlens.methods.cold import ColdKernel as ColdKernel
from steerlens.methods.instruction import InstructionVector as InstructionVector
from steerlens.methods.loreft import LoReFT as LoReFT
from steerlens.methods.psr import PSR as PSR
from steerlens.methods.reft_r1 import ReFTr1 as ReFTr1

__all__ = [name for name, value in globals().items() if isinstance(value, type)]  # pyright: ignore[reportUnsupportedDunderAll]
