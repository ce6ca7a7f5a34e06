"""Numba at the first call: how the compiled loops are declared, and two instructions that Numba has no name for.

Here: what changes when and how fast a loop runs and never what it computes. Not here: any loop.

Numba is loaded when the first of its functions is called, because every process imports the loops (the daemon, the
web server, a run that only fetches candles), most call none, and Numba with LLVM is 55 MB of memory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
R = TypeVar("R")

_making = threading.RLock()


class Late:
    """A function that is made when it is first called, and then takes its own place in the module that names it.

    Compiled code sees the globals of its module as they are when it is compiled, so all of a module's are made
    together, and those of the modules that theirs come from.
    """

    def __init__(self, make: Callable[[], Callable[..., Any]], home: dict[str, Any]) -> None:
        self._make = make
        self._home = home
        self._made: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Call the function, made if need be."""
        with _making:
            _settle(self._home)
            made = self.made()
        return made(*arguments)

    def made(self) -> Callable[..., Any]:
        """The function itself; the caller holds the lock."""
        if self._made is None:
            self._made = self._make()
            _settle(self._home)
        return self._made


def _settle(home: dict[str, Any]) -> None:
    """Put the functions of a module in the place of what stands for them."""
    for name, value in list(home.items()):
        if isinstance(value, Late):
            home[name] = value.made()


def compiled(*, nogil: bool = False) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator: `numba.njit` of a function, its machine code kept on disk. ``nogil``: other threads run meanwhile."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        def make() -> Callable[..., Any]:
            from numba import njit

            made: Callable[..., Any] = njit(cache=True, nogil=nogil)(function)
            return made

        return _standing_in_for(function, make)

    return decorate


def _standing_in_for(function: Callable[P, R], make: Callable[[], Callable[..., Any]]) -> Callable[P, R]:
    late: Any = Late(make, function.__globals__)
    functools.update_wrapper(late, function)
    return cast(Callable[P, R], late)


def _intrinsic(make: Callable[[], Callable[..., Any]]) -> Callable[..., Any]:
    return _standing_in_for(make, make)


@_intrinsic
def borrowed() -> Callable[..., Any]:
    """borrowed(array): the same array without its reference count, for as long as the caller holds the array itself.

    Counting references is an atomic instruction at every call that is handed an array: a seventh of the
    ledger's time, and more where threads count the same candles.
    """
    from llvmlite import ir
    from numba.extending import intrinsic

    @intrinsic
    def borrowed(_context: Any, array: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            view = context.make_array(signature.args[0])(context, builder, args[0])
            view.meminfo = ir.Constant(view.meminfo.type, None)
            return view._getvalue()

        return array(array), codegen

    return borrowed


@_intrinsic
def prefetch() -> Callable[..., Any]:
    """prefetch(array, index): ask for the cache line of `array[index]`, to be read soon. The index must be inside."""
    from llvmlite import ir
    from numba import types
    from numba.extending import intrinsic

    @intrinsic
    def prefetch(_context: Any, array: Any, index: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte, whole = ir.IntType(8).as_pointer(), ir.IntType(32)
            data = context.make_array(signature.args[0])(context, builder, args[0]).data
            kind = ir.FunctionType(ir.VoidType(), [byte, whole, whole, whole])
            call = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
            to_read, keep, is_data = whole(0), whole(3), whole(1)
            builder.call(call, [builder.bitcast(builder.gep(data, [args[1]]), byte), to_read, keep, is_data])
            return context.get_dummy_value()

        return types.void(array, index), codegen

    return prefetch
