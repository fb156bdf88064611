"""One file a method, one method a paper. A line here exports it everywhere: `X as X`."""

from steerlens.methods.act_add import ActAdd as ActAdd
from steerlens.methods.angular import Angular as Angular
from steerlens.methods.bipo import BiPO as BiPO
from steerlens.methods.caa import CAA as CAA
from steerlens.methods.cast import CAST as CAST
from steerlens.methods.clas import CLAS as CLAS
from steerlens.methods.cold import ColdFD as ColdFD
from steerlens.methods.cold import ColdKernel as ColdKernel
from steerlens.methods.directional_ablation import DirectionalAblation as DirectionalAblation
from steerlens.methods.icv import ICV as ICV
from steerlens.methods.instruction import InstructionVector as InstructionVector
from steerlens.methods.iti import ITI as ITI
from steerlens.methods.loreft import LoReFT as LoReFT
from steerlens.methods.persona import PersonaVector as PersonaVector
from steerlens.methods.psr import PSR as PSR
from steerlens.methods.reft_r1 import ReFTr1 as ReFTr1

__all__ = [name for name, value in globals().items() if isinstance(value, type)]  # pyright: ignore[reportUnsupportedDunderAll]
