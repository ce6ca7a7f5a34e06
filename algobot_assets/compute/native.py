"""Two instructions that Numba has no name for, used by the ledger's loop.

Here: what changes how fast a loop runs and never what it computes. Not here: any loop.
"""

from __future__ import annotations

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


@intrinsic
def borrowed(_context, array):
    """The same array without its reference count, for as long as the caller holds the array itself.

    Counting references is an atomic instruction at every call that is handed an array: a seventh of the
    ledger's time, and more where threads count the same candles.
    """

    def codegen(context, builder, signature, args):
        view = context.make_array(signature.args[0])(context, builder, args[0])
        view.meminfo = ir.Constant(view.meminfo.type, None)
        return view._getvalue()

    return array(array), codegen


@intrinsic
def prefetch(_context, array, index):
    """Ask for the cache line of `array[index]`, to be read soon. The index must be inside the array."""

    def codegen(context, builder, signature, args):
        byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
        call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        to_read, keep, is_data = whole(0), whole(3), whole(1)
        builder.call(call, [builder.bitcast(builder.gep(data, [args[1]]), byte), to_read, keep, is_data])
        return context.get_dummy_value()

    return types.void(array, index), codegen
